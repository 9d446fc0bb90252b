"""gemma-mlx chats: what is kept of earlier chats."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from gemma_mlx.errors import UsageError
from gemma_mlx.terminal import options as flag
from gemma_mlx.terminal.failures import exit_codes, one_line
from gemma_mlx.terminal.output import Output, write_stdout
from gemma_mlx.terminal.safe import visible_name

Name = Annotated[str, typer.Argument(metavar="NAME", help="The chat, as `gemma-mlx chats` calls it.")]
File = Annotated[Path, typer.Argument(metavar="FILE", help="Where to, ending in .md or .json.")]
Force = Annotated[bool, typer.Option("--force", help="Write over what is there.")]


def list_kept(context: typer.Context, as_json: flag.Json = False) -> None:
    """See the chats that are kept, the latest last; export or delete one.

    \b
    gemma-mlx chats
    gemma-mlx chats export 2026-11-20-0930-what-is-this chat.md
    gemma-mlx chats delete 2026-11-20-0930-what-is-this
    """
    with exit_codes(as_json):
        if context.invoked_subcommand is not None:
            if as_json:
                raise UsageError(f"--json has no effect before {context.invoked_subcommand}; leave it out")
            return
        from gemma_mlx.tasks.kept_chat import chats_folder
        from gemma_mlx.tasks.kept_chats import list_chats

        chats = list_chats()
        if as_json:
            write_stdout(one_line({"folder": str(chats_folder()), "chats": [asdict(chat) for chat in chats]}) + "\n")
            return
        if not chats:
            Output().note("no chats are kept yet; begin one with gemma-mlx chat")
        width = max((len(visible_name(chat.name)) for chat in chats), default=0)
        for chat in chats:
            turns = f"{chat.turns:,} turn{'' if chat.turns == 1 else 's'}"
            told = f"{chat.changed_at[:16].replace('T', ' ')}  {turns:>10}  {chat.size_bytes / 1e6:8.1f} MB"
            write_stdout(f"{visible_name(chat.name):{width}}  {told}  {visible_name(chat.model)}".rstrip() + "\n")


def export(name: Name, file: File, force: Force = False) -> None:
    """Write a chat as Markdown or JSON; FILE's ending says which."""
    with exit_codes():
        from gemma_mlx.tasks.exported_chat import export_chat
        from gemma_mlx.tasks.kept_chats import read_chat

        output = Output()
        record = read_chat(name)
        for note in export_chat(name, list(record.turns.values()), file, force=force):
            output.say(note)
        if record.passed_over:
            output.say(f"{record.passed_over} damaged lines of the chat were passed over")
        output.note(f"wrote {file}")


def delete(name: Name) -> None:
    """Delete a chat with its media."""
    with exit_codes():
        from gemma_mlx.tasks.kept_chats import delete_chat

        delete_chat(name)
        Output().note(f"deleted {name}")
