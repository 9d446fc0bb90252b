"""How far a batch has come, on a terminal: a bar over all files, the one in work, how fast, and how long still."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from gemma_mlx.terminal.output import Output
from gemma_mlx.terminal.safe import visible_line

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID


class BatchProgress:
    """Entered, it shows a line on stderr; nothing where `output` is quiet or stderr is no terminal.

    Whatever else is written to the terminal is written inside `hidden`.
    """

    def __init__(self, output: Output, total: int) -> None:
        """`total` files are to come."""
        self._total = total
        self._progress: Progress | None = None
        self._task: TaskID | None = None
        self._worked = 0
        self._begun_s = time.monotonic()
        if output.shows_status and total > 1:
            self._progress = _progress()
            self._task = self._progress.add_task("", total=total, file="", rate="")

    def __enter__(self) -> BatchProgress:
        if self._progress is not None:
            self._progress.start()
        return self

    def __exit__(self, *exception: object) -> None:
        if self._progress is not None:
            self._progress.stop()

    def begin(self, file: str) -> None:
        """`file` is in work from now on."""
        if self._progress is not None and self._task is not None:
            self._progress.update(self._task, file=visible_line(file)[-40:], refresh=True)

    def end(self, *, worked: bool = True) -> None:
        """The file is done with. One that took no work, as it was done before, does not count as speed."""
        self._worked += worked
        if self._progress is not None and self._task is not None:
            minutes = (time.monotonic() - self._begun_s) / 60
            rate = f"{self._worked / minutes:.1f} images/min" if self._worked and minutes > 0 else ""
            self._progress.update(self._task, advance=1, rate=rate)

    @contextmanager
    def hidden(self) -> Iterator[None]:
        """Takes the line away for what is written meanwhile."""
        if self._progress is not None:
            self._progress.stop()
        try:
            yield
        finally:
            if self._progress is not None:
                self._progress.start()


def _progress() -> Progress:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    return Progress(
        TextColumn("{task.fields[file]}", markup=False),
        BarColumn(bar_width=20),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}", markup=False),
        TimeRemainingColumn(),
        console=Console(file=sys.stderr),
        transient=True,
        redirect_stdout=False,
        redirect_stderr=False,
    )
