"""What Tab completes: names of commands, what may follow them, and paths."""

from __future__ import annotations

from collections.abc import Iterable

from prompt_toolkit.completion import CompleteEvent, Completer, Completion, PathCompleter
from prompt_toolkit.document import Document

from gemma_mlx.terminal.chat.commands import BY_NAME
from gemma_mlx.terminal.safe import visible_line


class CommandCompleter(Completer):
    """Completes lines that begin with a slash."""

    def __init__(self) -> None:
        self._paths = PathCompleter(expanduser=True)

    def get_completions(self, document: Document, complete_event: CompleteEvent) -> Iterable[Completion]:
        line = document.text_before_cursor
        if not line.startswith("/") or "\n" in line:
            return
        name, space, rest = line[1:].partition(" ")
        if not space:
            for known, row in BY_NAME.items():
                if known.startswith(name):
                    yield Completion(known, -len(name), display=f"/{known}", display_meta=row.help)
            return
        command = BY_NAME.get(name)
        if command is None:
            return
        for choice in command.choices:
            if choice.startswith(rest):
                yield Completion(choice, -len(rest))
        if command.takes_path:
            for found in self._paths.get_completions(Document(rest, len(rest)), complete_event):
                yield Completion(found.text, found.start_position, display=visible_line(found.display_text))
