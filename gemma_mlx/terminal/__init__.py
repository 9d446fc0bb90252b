"""The command line and the chat: the only place that imports typer, rich, prompt_toolkit and sounddevice."""
