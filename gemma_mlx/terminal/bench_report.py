"""What the benchmarks do with their reports: keep them, show them again, draw them, print them."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gemma_mlx.errors import GemmaError, UsageError
from gemma_mlx.terminal.failures import one_line
from gemma_mlx.terminal.output import Output, write_stdout

if TYPE_CHECKING:
    from benchmarks.report import Form, Report


def refuse_beside_from(given: dict[str, object]) -> None:
    """UsageError for a flag that would do nothing, as --from measures nothing."""
    if named := [option for option, value in given.items() if value]:
        raise UsageError(f"{named[0]} has no effect with --from, which measures nothing; leave it out")


def place_to_draw(plot: Path | None, folder: Path | None, name: str) -> Path | None:
    """Where the picture goes: to `plot`, else to `name` in `folder`, else nowhere.

    UsageError where no file could be written: nobody wants to hear of it after hours of measuring.
    """
    if plot is None:
        return folder / name if folder else None
    if not plot.name or (plot.parent.exists() and not os.access(plot.parent, os.W_OK | os.X_OK)):
        raise UsageError(f"--plot {str(plot)!r} cannot be written; name a file in a folder of your own")
    try:
        plot.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"--plot {str(plot)!r} cannot be written ({error.strerror}); name another file") from None
    return plot


def read_again(form: Form, file: Path, picture: Path | None) -> Report:
    """The report in `file`, which can be drawn to `picture` as far as can be told before."""
    from benchmarks.picture import require_matplotlib
    from benchmarks.report import read_report

    if picture is not None:
        require_matplotlib()
    return read_report(form, file)


def keep(report: Report, file: Path | None) -> None:
    """`file` holds `report` afterwards. GemmaError where it cannot be written."""
    from benchmarks.report import write_report

    if file is not None:
        try:
            write_report(report, file)
        except OSError as error:
            raise GemmaError(f"cannot write {str(file)!r}: {error.strerror}; name another --output") from None


def finish(
    report: Report,
    output: Output,
    table: Sequence[str],
    picture: Path | None,
    draw: Callable[[Any, Path], tuple[Path, Path]],
) -> None:
    """Table, the JSON line, and the picture, which may fail."""
    output.clear_status()
    for line in table:
        output.note(line)
    write_stdout(one_line(report) + "\n")
    if picture is not None and report["points"]:
        try:
            png, svg = draw(report, picture)
        except OSError as error:
            raise GemmaError(f"cannot write the plot {str(picture)!r}: {error.strerror}; name another place") from None
        output.note(f"drawn: {png} and {svg}")


def aligned(rows: list[list[str]]) -> list[str]:
    """Lines of columns, each as wide as its widest cell."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return ["  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)) for row in rows]
