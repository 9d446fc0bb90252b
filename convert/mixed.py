"""The recipe `mixed`: the bits where they lower the error most, within a size that is asked for."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from convert.budget import Choice, choose, largest_bytes, smallest_bytes
from convert.conversion import folder_bytes
from convert.measurement import CANDIDATES, Measurement
from convert.recipes import Packing, Recipe
from convert.source import Source
from gemma_mlx.errors import UsageError

NAME = "mixed"
CARD_BYTES = 16_384
"""Kept free for what describes the folder to people, which is written last."""


def mixed_recipe(source: Source, found: Measurement, target_bytes: int) -> Recipe:
    """The recipe with the least damage, as far as that adds up, whose folder takes at most `target_bytes`.

    Raises UsageError as `rest_beside`.
    """
    rest_bytes = rest_beside(source, found.damages, target_bytes)
    choices = {module: _choices(source, module, found.damage) for module in found.damages}
    chosen = {module: choice.packing for module, choice in choose(choices, target_bytes - rest_bytes).items()}
    return _recipe(chosen)


def rest_beside(source: Source, modules: Iterable[str], target_bytes: int) -> int:
    """What a folder of `target_bytes` holds beside `modules`: whole tensors, headers, tokenizer, and a config that
    names every module.

    Raises UsageError for a target that is below what all modules take at their fewest bits, or above their most.
    """
    choices = {module: _choices(source, module, lambda module, packing: 0.0) for module in modules}
    widest = {module: max(of_module, key=lambda c: c.nbytes).packing for module, of_module in choices.items()}
    rest_bytes = folder_bytes(source, Recipe(NAME, CANDIDATES[0], widest)) - largest_bytes(choices) + CARD_BYTES
    least_bytes, most_bytes = (rest_bytes + size(choices) for size in (smallest_bytes, largest_bytes))
    if not least_bytes <= target_bytes <= most_bytes:
        raise UsageError(
            f"--target-gb {target_bytes / 1e9:g} cannot be met: this model takes from {_up(least_bytes)} to "
            f"{_down(most_bytes)} GB"
        )
    return rest_bytes


def _choices(source: Source, module: str, damage: Callable[[str, Packing], float]) -> list[Choice]:
    shape = source.tensors[f"{module}.weight"].shape
    choices = [
        Choice(packing, int(math.prod(shape) * packing.bits_per_weight) // 8, damage(module, packing))
        for packing in CANDIDATES
        if shape[1] % packing.group_size == 0
    ]
    if not choices:
        raise UsageError(f"{module} has {shape[1]} columns, which no group divides: convert with --recipe bf16")
    return choices


def _recipe(chosen: Mapping[str, Packing]) -> Recipe:
    """What most modules get is the default, and the others differ from it."""
    counts = Counter(chosen.values())
    default = max(counts, key=lambda packing: (counts[packing], packing.bits, packing.group_size))
    return Recipe(NAME, default, {module: packing for module, packing in chosen.items() if packing != default})


def default_file(destination: Path) -> Path:
    """Where the measurement is kept for a conversion to `destination`: beside it."""
    return destination.with_name(f"{destination.name}.sensitivity.json")


def _up(nbytes: int) -> str:
    return f"{math.ceil(nbytes / 1e4) / 1e5:g}"


def _down(nbytes: int) -> str:
    return f"{math.floor(nbytes / 1e4) / 1e5:g}"
