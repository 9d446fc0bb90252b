"""How far transcripts have come: of the file and of all files, how fast, and how long it will take."""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import TYPE_CHECKING

from gemma_mlx.terminal.safe import visible_line

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID


class TranscribeProgress:
    """Bars on stderr where `shown`, nothing where not. Use in a `with`; they are gone after it."""

    def __init__(self, files: int, *, shown: bool) -> None:
        self._files = files
        self._shown = shown
        self._bars: Progress | None = None
        self._file: TaskID | None = None
        self._all: TaskID | None = None
        self._began_s = 0.0

    def __enter__(self) -> TranscribeProgress:
        if self._shown:
            from rich.console import Console
            from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

            columns = (TextColumn("{task.description}", markup=False), BarColumn(), TextColumn("{task.fields[facts]}"),
                       TimeRemainingColumn())  # fmt: skip
            self._bars = Progress(*columns, console=Console(file=sys.stderr), transient=True, redirect_stdout=False)
            self._bars.start()
            if self._files > 1:
                self._all = self._bars.add_task("all files", total=self._files, facts=f"0 of {self._files}")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bars:
            self._bars.stop()

    def begin(self, name: str, duration_s: float | None) -> None:
        """A file is begun; `duration_s` as it claims, if it does."""
        self._began_s = time.perf_counter()
        if self._bars:
            self._file = self._bars.add_task(visible_line(name), total=duration_s, facts="")

    def at(self, place_s: float) -> None:
        """Everything up to `place_s` of the file is done."""
        if self._bars and self._file is not None:
            seconds = time.perf_counter() - self._began_s
            speed = f", {place_s / seconds:.1f} times real time" if seconds > 1 else ""
            self._bars.update(self._file, completed=place_s, facts=f"{clock(place_s)}{speed}")

    def end(self) -> None:
        """The file is done with, begun or not."""
        if self._bars and self._file is not None:
            self._bars.remove_task(self._file)
            self._file = None
        if self._bars and self._all is not None:
            self._bars.advance(self._all)
            done = int(self._bars.tasks[0].completed)
            self._bars.update(self._all, facts=f"{done} of {self._files}")


def clock(seconds: float) -> str:
    """1:02:03, or 2:03 where it is less than an hour, or 3.4 s where it is less than a minute."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(int(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02}:{rest:02}" if minutes >= 60 else f"{minutes}:{rest:02}"
