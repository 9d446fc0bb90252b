"""gemma-mlx convert: a checkpoint -> a folder of packed weights that fits the machine."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gemma_mlx.terminal import options as flag
from gemma_mlx.terminal.convert_calibrated import (
    calibrated_on,
    calibration_figures,
    output_error_lines,
    prompts_to_round_on,
)
from gemma_mlx.terminal.convert_mixed import MIXED, check_mixed_flags, measured_recipe
from gemma_mlx.terminal.convert_source import opened
from gemma_mlx.terminal.failures import exit_codes, one_line, show_warnings_in_one_line
from gemma_mlx.terminal.output import Output, write_stdout

if TYPE_CHECKING:
    from convert.conversion import ConversionReport

_SOURCE_HELP = "Folder of the downloaded model, or its name on Hugging Face, as google/gemma-4-12B-it[@REVISION]."
_FUSE_HELP = "Make the LoRA or DoRA adapter in FOLDER part of the weights, in float32, before they are packed."
_RECIPE_HELP = (
    "Bits per weight: 4bit, 4bit-g32, 6bit, 8bit or bf16; qat or qat-f32 keep a release trained for 4 bits; mixed "
    "spends --target-gb where it measured that bits matter."
)
_ROUND_HELP = "With --recipe qat: round blocks that are not on the 4-bit lattice, instead of refusing them."
_TARGET_HELP = "Size of the folder for --recipe mixed, in GB of 10^9 bytes."
_CALIBRATION_HELP = (
    "JSON Lines of text and answer, perhaps image and audio. 4bit, 4bit-g32, 6bit and 8bit round with error feedback "
    "then, for small errors in what the layers make of these; mixed measures on them."
)
_SENSITIVITY_HELP = "For --recipe mixed: where its measurement is kept, and used again for another size."
_REVISION_HELP = "Branch, tag or commit on Hugging Face."
_LOW_DISK_HELP = "Convert as the bytes arrive from Hugging Face, without a copy of the source on this disk."
_RESTART_HELP = "Throw away what an unfinished conversion of something else left for DESTINATION."

SPEED_OVER_S = 1800.0
"""What the time left is reckoned from: with error feedback minutes may pass without a byte, and then come many."""


def convert(
    source: Annotated[str, typer.Argument(metavar="SOURCE", help=_SOURCE_HELP)],
    destination: Annotated[Path, typer.Argument(metavar="DESTINATION", help="New folder to write.")],
    recipe: Annotated[str, typer.Option("--recipe", metavar="RECIPE", help=_RECIPE_HELP)] = "4bit",
    round_off_lattice: Annotated[bool, typer.Option("--round", help=_ROUND_HELP)] = False,
    fuse: Annotated[str | None, typer.Option("--fuse", metavar="FOLDER", help=_FUSE_HELP)] = None,
    revision: Annotated[
        str | None, typer.Option("--revision", metavar="REVISION", help=_REVISION_HELP, show_default="main")
    ] = None,
    low_disk: Annotated[bool, typer.Option("--low-disk", help=_LOW_DISK_HELP)] = False,
    restart: Annotated[bool, typer.Option("--restart", help=_RESTART_HELP)] = False,
    target_gb: Annotated[float | None, typer.Option("--target-gb", metavar="GB", help=_TARGET_HELP)] = None,
    calibration: Annotated[
        Path | None,
        typer.Option(
            "--calibration", metavar="FILE", help=_CALIBRATION_HELP, show_default="some of each kind, for mixed"
        ),
    ] = None,
    sensitivity: Annotated[
        Path | None,
        typer.Option(
            "--sensitivity", metavar="FILE", help=_SENSITIVITY_HELP, show_default="DESTINATION.sensitivity.json"
        ),
    ] = None,
    as_json: flag.Json = False,
    quiet: flag.Quiet = False,
) -> None:
    """Pack a model; afterwards it is the one used when no --model is named.

    Stopped in any way, the same command goes on where it was. The model's drafter, which makes answers faster, goes
    into the folder "drafter" of the packed model.

    \b
    gemma-mlx convert google/gemma-4-12B-it gemma-4bit
    gemma-mlx convert google/gemma-4-12B-it-assistant gemma-4bit/drafter
    gemma-mlx convert ~/models/gemma-4-12B-it gemma-8bit --recipe 8bit
    gemma-mlx convert ~/models/gemma-4-12B-it gemma-7.5 --recipe mixed --target-gb 7.5
    """
    with exit_codes(as_json):
        output = Output(quiet)
        show_warnings_in_one_line(output)
        from convert.conversion import convert_source
        from convert.fuse import fuse as fused
        from convert.partial_folder import refuse_existing
        from convert.recipes import recipe_named
        from convert.source import converted_bytes
        from gemma_mlx.home import find_adapter

        check_mixed_flags(recipe, target_gb, sensitivity, round_off_lattice=round_off_lattice)
        chosen = recipe_named(
            "4bit" if recipe == MIXED else recipe, round_off_lattice=round_off_lattice, others=[MIXED]
        )
        rounds_on = None if recipe == MIXED or calibration is None else prompts_to_round_on(calibration, chosen)
        adapter = find_adapter(fuse) if fuse is not None else None
        refuse_existing(destination)
        written_bytes = partial(converted_bytes, recipe=chosen) if target_gb is None else lambda _: int(target_gb * 1e9)
        bar = partial(_progress_bar, output)
        with (
            _saying_that_it_goes_on(destination, output),
            opened(source, revision, low_disk, destination, written_bytes, output, bar) as found,
        ):
            if adapter is not None:
                found = fused(found, adapter)
            if target_gb is not None:
                chosen = measured_recipe(
                    found, destination, target_gb, calibration, sensitivity, output, restart=restart
                )
            text = None if rounds_on is None else calibrated_on(found, rounds_on, output)
            with bar("converting") as progress:
                report = convert_source(
                    found, destination, chosen, progress=progress, restart=restart, calibration=text
                )
        output.note(summary(destination, report))
        if report.repacking is not None:
            output.note(str(report.repacking))
        for line in (*lattice_lines(report), *output_error_lines(report)):
            output.note(line)
        _tell_how_it_is_used(destination, report.is_drafter, output)
        if as_json:
            facts = {
                "source": source,
                "revision": found.revision,
                "recipe": chosen.name,
                "calibration": None if text is None else calibration_figures(text),
                "chosen_on": chosen.chosen_on or None,
                "adapter": found.adapter.name if found.adapter else None,
                "destination": str(destination),
            }
            write_stdout(one_line(facts | _figures(report)) + "\n")


def _figures(report: ConversionReport) -> dict[str, Any]:
    return {
        "drafter": report.is_drafter,
        "bytes": report.bytes_written,
        "bits_per_weight": report.bits_per_weight,
        "tensors": report.tensors,
        "seconds": report.seconds,
        "repacking": None if report.repacking is None else asdict(report.repacking),
        "tallies": {
            kind: asdict(tally)
            | {
                "relative_error": tally.relative_error,
                "relative_output_error": tally.relative_output_error,
                "plain_relative_output_error": tally.plain_relative_output_error,
            }
            for kind, tally in report.changes.items()
        },
    }


@contextmanager
def _saying_that_it_goes_on(destination: Path, output: Output) -> Iterator[None]:
    """After Ctrl-C, what became of the work."""
    from convert.partial_folder import partial_path

    try:
        yield
    except KeyboardInterrupt:
        if partial_path(destination).is_dir():
            output.say(f"{partial_path(destination)} keeps what is done; the same command goes on from there")
        raise


def _tell_how_it_is_used(destination: Path, is_drafter: bool, output: Output) -> None:
    from gemma_mlx.home import remember_model

    if is_drafter:
        output.note(_where_it_is_found(destination))
        return
    try:
        remember_model(destination)
    except OSError as error:
        output.say(f"cannot remember it as the default ({error.strerror or error}); name it with --model {destination}")
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


def lattice_lines(report: ConversionReport) -> list[str]:
    """What was found of a 4-bit lattice, where one was looked for."""
    from convert.tally import Tally

    tally = sum(report.changes.values(), start=Tally())
    if not tally.blocks:
        return []
    found = (
        f"{tally.blocks - tally.blocks_off_lattice:,} of {tally.blocks:,} blocks are on the 4-bit lattice; "
        f"{tally.same_numbers / tally.numbers:.2%} of the numbers are the same in bfloat16"
    )
    if not tally.blocks_off_lattice:  # a number near 0 that was rounded is off by many times itself
        found += f", the others within {tally.largest_deviation:.2%}"
    return [found, f"rounded: {report.off_lattice}"] if report.off_lattice else [found]


@contextmanager
def _progress_bar(output: Output, doing: str) -> Iterator[Callable[[int, int], None] | None]:
    """Something to tell (done, all) bytes to: a bar on a terminal, nothing elsewhere."""
    output.clear_status()
    if not output.shows_status:
        yield None
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(bar_width=None),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True, speed_estimate_period=SPEED_OVER_S) as bar:
        task = bar.add_task(doing, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)
