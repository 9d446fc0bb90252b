"""gemma-mlx convert: a checkpoint -> a folder of packed weights that fits the machine."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from gemma_mlx.errors import UsageError
from gemma_mlx.terminal import options as flag
from gemma_mlx.terminal.failures import exit_codes, show_warnings_in_one_line
from gemma_mlx.terminal.output import Output

if TYPE_CHECKING:
    from convert.conversion import ConversionReport

_SOURCE_HELP = "Folder of the downloaded model, as google/gemma-4-12B-it."
_RECIPE_HELP = "Bits per weight: 4bit, 8bit or bf16."


def convert(
    source: Annotated[Path, typer.Argument(metavar="SOURCE", help=_SOURCE_HELP)],
    destination: Annotated[Path, typer.Argument(metavar="DESTINATION", help="New folder to write.")],
    recipe: Annotated[str, typer.Option("--recipe", metavar="RECIPE", help=_RECIPE_HELP)] = "4bit",
    quiet: flag.Quiet = False,
) -> None:
    """Pack a downloaded model; afterwards it is the one used when no --model is named.

    Its drafter, which makes answers faster, goes into the folder "drafter" of the packed model.

    \b
    gemma-mlx convert gemma-4-12B-it gemma-4bit
    gemma-mlx convert gemma-4-12B-it-assistant gemma-4bit/drafter
    """
    with exit_codes():
        output = Output(quiet)
        show_warnings_in_one_line(output)
        if not os.path.isdir(source):  # noqa: PTH112  # False also for a name that is too long
            raise UsageError(f"no model folder {str(source)!r}; download google/gemma-4-12B-it and name its folder")
        output.status("reading the headers ...")
        from convert.conversion import convert_checkpoint
        from gemma_mlx.home import remember_model

        with _progress_bar(output) as progress:
            report = convert_checkpoint(source, destination, recipe, progress=progress)
        output.note(summary(destination, report))
        if report.is_drafter:
            output.note(_where_it_is_found(destination))
            return
        try:
            remember_model(destination)
        except OSError as error:
            output.say(f"cannot remember it as the default ({error.strerror}); name it with --model {destination}")
        else:
            output.note(f"{destination} is now the model that is used when none is named; try: gemma-mlx chat")


def _where_it_is_found(drafter: Path) -> str:
    """What a converted drafter is for."""
    from gemma_mlx.home import find_drafter

    model = drafter.absolute().parent
    if (model / "config.json").is_file() and find_drafter(model) == drafter.absolute():
        return f"{model} now answers with this drafter"
    return f"a drafter: name it with --drafter {drafter}, or keep it as the folder drafter in the model's folder"


def summary(destination: Path, report: ConversionReport) -> str:
    """What a conversion did, in one line."""
    from gemma_mlx.memory import readable

    return (
        f"{destination}: {readable(report.bytes_written)}, {report.bits_per_weight:.2f} bits per weight, "
        f"{report.tensors} tensors in {report.seconds:.1f} s"
    )


@contextmanager
def _progress_bar(output: Output) -> Iterator[Callable[[int, int], None] | None]:
    """Something to tell (done, all) bytes to: a bar on a terminal, nothing elsewhere."""
    output.clear_status()
    if not output.shows_status:
        yield None
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TimeRemainingColumn

    columns = (BarColumn(bar_width=None), DownloadColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("converting", total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)
