"""The chat, wherever it is shown: its commands, what waits to be sent, how it is opened; and the chat as lines."""
