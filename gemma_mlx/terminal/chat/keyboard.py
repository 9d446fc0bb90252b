"""Where the lines of a chat come from: a person at a terminal, or a pipe."""

from __future__ import annotations

import sys
from collections.abc import Callable

from gemma_mlx.errors import InputError

PROMPT = "> "


class CancelledLineError(Exception):
    """Ctrl-C at the prompt. `empty` tells whether anything had been typed."""

    def __init__(self, empty: bool) -> None:
        super().__init__()
        self.empty = empty


ReadLine = Callable[[str], str]
"""Takes what stands in the line already; gives the line. EOFError at the end, CancelledLineError for Ctrl-C, InputError
for a line that is not UTF-8, after which the next can be read."""


def piped_lines() -> ReadLine:
    """Lines as they come through a pipe."""

    def read(_typed: str) -> str:
        line = sys.stdin.buffer.readline() if sys.stdin is not None else b""
        if not line:
            raise EOFError
        try:
            return line.decode("utf-8").rstrip("\r\n")
        except UnicodeDecodeError as error:
            raise InputError(f"a line is not UTF-8 text (byte {error.start}) and was not sent; convert it") from error

    return read


def typed_lines(keep: bool = True) -> ReadLine:
    """An editable line with the history of earlier chats; without `keep`, nothing of this one is written."""
    from prompt_toolkit import PromptSession
    from prompt_toolkit.output import create_output

    from gemma_mlx.terminal.chat.history import history

    session: PromptSession[str] = PromptSession(history=history(keep), output=create_output(always_prefer_tty=True))

    def read(typed: str) -> str:
        try:
            return session.prompt(PROMPT, default=typed)
        except KeyboardInterrupt:
            raise CancelledLineError(empty=not session.default_buffer.text) from None

    return read
