"""Where the lines of a chat come from: a person at a terminal, or a pipe."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from gemma_mlx.errors import InputError
from gemma_mlx.home import home

if TYPE_CHECKING:
    from prompt_toolkit.history import History

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

    session: PromptSession[str] = PromptSession(history=history(keep), output=create_output(always_prefer_tty=True))

    def read(typed: str) -> str:
        try:
            return session.prompt(PROMPT, default=typed)
        except KeyboardInterrupt:
            raise CancelledLineError(empty=not session.default_buffer.text) from None

    return read


def history(keep: bool = True) -> History:
    """The history in the user's folder, readable by that user only; a passing one where it cannot be kept."""
    from prompt_toolkit.history import FileHistory, InMemoryHistory

    if not keep:
        return InMemoryHistory()
    path = home() / "history"
    try:
        _create_private(path)
    except OSError:
        return InMemoryHistory()
    return FileHistory(str(path))


def _create_private(path: Path) -> None:
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    os.close(os.open(path, os.O_CREAT | os.O_APPEND | os.O_WRONLY, 0o600))
    path.chmod(0o600)
