"""Whether a source lies on the lattice of its recipe: from a first look at a few numbers, and in words."""

from __future__ import annotations

import warnings
from collections.abc import Mapping

from convert.lattice import BLOCK, pack_lattice_rows
from convert.packed_source import PackedTensor
from convert.recipes import TRAINED_FOR_4_BITS, Recipe, module_kind
from convert.source import Source
from convert.source_tensor import SourceTensor
from convert.tally import Tally
from gemma_mlx.errors import CheckpointError, GemmaWarning

LOOKED_AT_NUMBERS = 1 << 16
MOST_NAMED = 3
"""Tensors; of others it is only said how many there are."""


def look_at_lattice(source: Source, recipe: Recipe) -> None:
    """Looks at the beginning of one tensor of each kind that `recipe` packs.

    Raises CheckpointError where the recipe wants a lattice and finds none, or an adapter has left it: in seconds and
    not at the end. Warns (GemmaWarning) where a recipe would leave the lattice that it finds in a source on this disk.
    """
    first_of_kind: dict[str, str] = {}
    tensors = source.tensors
    for name, tensor in tensors.items():
        if recipe.packing_of(name) is not None and not isinstance(tensor, PackedTensor):
            first_of_kind.setdefault(module_kind(name), name)
    if recipe.packing is None or not first_of_kind:
        return
    if not recipe.packing.on_lattice:
        if not source.is_remote and begins_on_lattice(tensors[next(iter(first_of_kind.values()))]):
            warnings.warn(
                "the source was trained for 4 bits and lies on their lattice: --recipe qat keeps its numbers, "
                f"--recipe {recipe.name} rounds them again",
                GemmaWarning,
                stacklevel=4,
            )
        return
    looks = {tensors[name].name: _first_look(tensors[name]) for name in first_of_kind.values()}
    if not recipe.round_off_lattice:
        _refuse_fused(source, recipe)
        require_on_lattice(looks)
    elif all(2 * tally.blocks_off_lattice > tally.blocks for tally in looks.values()):
        raise CheckpointError(
            f"most of the source is not on a 4-bit lattice: {tensors_off_lattice(looks)}; --round is for a few blocks: "
            "use --recipe 4bit-g32, which rounds as well and faster"
        )


def _refuse_fused(source: Source, recipe: Recipe) -> None:
    """Raises CheckpointError where an adapter was fused into what `recipe` packs: W + BA is on no lattice."""
    if source.adapter is None:
        return
    changed = {*(f"{path}.weight" for path in source.adapter.updates), *source.adapter.whole}
    if any(recipe.packing_of(name) is not None for name in changed):
        raise CheckpointError(
            f"the adapter {source.adapter.name} takes the weights off their 4-bit lattice: fuse it with --recipe "
            f"4bit-g32, or with --round, or convert with --recipe {recipe.name} alone and name it with --adapter"
        )


def begins_on_lattice(tensor: SourceTensor) -> bool:
    """Whether the first numbers of a matrix were trained for 4 bits."""
    tally = _first_look(tensor)
    return bool(tally.squared_sum) and not tally.blocks_off_lattice


def _first_look(tensor: SourceTensor) -> Tally:
    columns = tensor.shape[-1]
    if columns % BLOCK:
        return Tally()
    return pack_lattice_rows(next(tensor.slices())[: max(1, LOOKED_AT_NUMBERS // columns)], TRAINED_FOR_4_BITS).tally


def require_on_lattice(tallies: Mapping[str, Tally]) -> None:
    """Raises CheckpointError that names the tensors with blocks off the lattice."""
    if found := tensors_off_lattice(tallies):
        raise CheckpointError(
            f"not on a 4-bit lattice: {found}; --recipe qat is for what was trained for 4 bits, as "
            "google/gemma-4-12B-it-qat-q4_0-unquantized: use --recipe 4bit, or --round to have such blocks rounded"
        )


def tensors_off_lattice(tallies: Mapping[str, Tally]) -> str:
    """ "a.weight (3 of 128 blocks), b.weight (1 of 64 blocks) and 2 more tensors", for tallies by tensor name."""
    found = [
        f"{name} ({tally.blocks_off_lattice:,} of {tally.blocks:,} blocks)"
        for name, tally in tallies.items()
        if tally.blocks_off_lattice
    ]
    more = [f"{len(found) - MOST_NAMED} more tensors"] if len(found) > MOST_NAMED else []
    return " and ".join([", ".join(found[:MOST_NAMED]), *more])
