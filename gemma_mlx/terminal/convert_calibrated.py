"""Error feedback in `gemma-mlx convert`: the prompts that it is made on, and what it came to."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from gemma_mlx.terminal.output import Output

if TYPE_CHECKING:
    from convert.calibrated import Calibration
    from convert.calibration import Exchange
    from convert.conversion import ConversionReport
    from convert.recipes import Recipe
    from convert.source import Source


def prompts_to_round_on(file: Path, recipe: Recipe) -> list[Exchange]:
    """The prompts in `file`, with answers where it has some. UsageError for one that cannot be used, and for a recipe
    that has no use for them."""
    from benchmarks.prompts import read_prompts
    from convert.calibrated import refuse_recipe
    from convert.calibration import Exchange

    refuse_recipe(recipe)
    return [Exchange(prompt.messages, prompt.answer or "", prompt.where) for prompt in read_prompts(file)]


def calibrated_on(source: Source, exchanges: list[Exchange], output: Output) -> Calibration:
    """`exchanges` as the model takes them; says how many."""
    from convert.calibrated import calibration_of
    from convert.runnable import refuse_unrunnable

    refuse_unrunnable(source, "--calibration")
    found = calibration_of(source.folder, exchanges)
    output.note(f"rounding the layers with error feedback on {found}")
    return found


def calibration_figures(calibration: Calibration) -> dict[str, Any]:
    """For --json."""
    return {
        "prompts": len(calibration.samples),
        "tokens": calibration.tokens,
        "digest": calibration.digest,
    }


def output_error_lines(report: ConversionReport) -> list[str]:
    """What error feedback did, where there was some."""
    from convert.tally import Tally

    tally = sum(report.changes.values(), start=Tally())
    if not tally.output_sum:
        return []
    return [
        f"outputs of the layers' matrices change by {tally.relative_output_error:.2%} on these prompts, where plain "
        f"rounding would change them by {tally.plain_relative_output_error:.2%}"
    ]
