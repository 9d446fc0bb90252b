"""What was typed in earlier chats, for the arrow keys and Ctrl-R."""

from __future__ import annotations

import os
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from prompt_toolkit.history import FileHistory, History, InMemoryHistory

from gemma_mlx.home import home


def history(keep: bool = True) -> History:
    """The history in the user's folder, readable by that user only; a passing one where it cannot be kept."""
    if not keep:
        return InMemoryHistory()
    path = home() / "history"
    try:
        _create_private(path)
    except OSError:
        return InMemoryHistory()
    return _KeptHistory(str(path))


class _KeptHistory(FileHistory):
    """A line that the disk does not take is in the history of this chat alone."""

    def store_string(self, string: str) -> None:
        with suppress(OSError):
            super().store_string(string)

    def load_history_strings(self) -> Iterable[str]:
        with suppress(OSError):
            yield from super().load_history_strings()


def _create_private(path: Path) -> None:
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    os.close(os.open(path, os.O_CREAT | os.O_APPEND | os.O_WRONLY, 0o600))
    path.chmod(0o600)
