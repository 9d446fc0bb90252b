"""The recipe mixed of `gemma-mlx convert`: its flags, and the measuring that comes before the packing."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from gemma_mlx.errors import UsageError
from gemma_mlx.terminal.output import Output

if TYPE_CHECKING:
    from convert.calibration import Exchange
    from convert.recipes import Recipe
    from convert.source import Source

MIXED = "mixed"


def check_mixed_flags(
    recipe: str,
    target_gb: float | None,
    sensitivity: Path | None,
    *,
    round_off_lattice: bool = False,
) -> None:
    """UsageError where the flags do not belong to the recipe, or it lacks its size."""
    if recipe == MIXED:
        if round_off_lattice:
            raise UsageError("--round rounds what is off the lattice of --recipe qat; leave it out with --recipe mixed")
        if target_gb is None or not (math.isfinite(target_gb * 1e9) and target_gb > 0):
            raise UsageError("--recipe mixed fills a size: name it, as --recipe mixed --target-gb 7.5")
        return
    given = {"--target-gb": target_gb, "--sensitivity": sensitivity}
    for flag, value in given.items():
        if value is not None:
            raise UsageError(f"{flag} has no effect with --recipe {recipe}; leave it out, or use --recipe mixed")


def measured_recipe(
    source: Source,
    destination: Path,
    target_gb: float,
    calibration: Path | None,
    sensitivity: Path | None,
    output: Output,
    *,
    restart: bool,
) -> Recipe:
    """The recipe that fills `target_gb`, by what packing costs on the prompts in `calibration`.

    What would be refused after the measuring is refused before it.
    """
    from convert.calibrated import Calibration
    from convert.calibration import samples_of
    from convert.disk_space import held_bytes, require_space
    from convert.measurement import measured_modules, measurement
    from convert.mixed import default_file, mixed_recipe, rest_beside
    from convert.partial_folder import refuse_other_recipe, working_folder
    from convert.runnable import refuse_unrunnable
    from gemma_mlx.config import read_config

    refuse_unrunnable(source, "--recipe mixed")
    config, target_bytes = read_config(source.folder), int(target_gb * 1e9)
    exchanges = _exchanges(calibration, config.is_miniature)
    rest_beside(source, measured_modules(config), target_bytes)
    refuse_other_recipe(destination, MIXED, restart=restart)
    require_space({destination: target_bytes - held_bytes(working_folder(destination))})
    samples = samples_of(source.folder, exchanges)
    file = sensitivity or default_file(destination)
    measured_on = Calibration(tuple(samples))
    output.note(f"measuring what packing each module costs, on {measured_on}; {file} keeps it, prompt by prompt")

    def progress(done: int, layers: int) -> None:
        output.status(f"measuring: {done} of {layers} layers ...")

    found = measurement(source.folder, config, source.identity, samples, file, progress)
    output.clear_status()
    chosen = mixed_recipe(source, found, target_bytes)
    return replace(chosen, chosen_on=f"{measured_on} (digest {measured_on.digest})")


def _exchanges(calibration: Path | None, miniature: bool) -> list[Exchange]:
    from convert.calibration import Exchange, default_exchanges

    if calibration is None:
        return default_exchanges(miniature=miniature)
    from benchmarks.prompts import read_prompts

    exchanges = []
    for prompt in read_prompts(calibration):
        if prompt.answer is None:
            raise UsageError(f'{prompt.where} has no answer to judge by; write {{"text": "...", "answer": "..."}}')
        exchanges.append(Exchange(prompt.messages, prompt.answer, prompt.where))
    return exchanges
