"""All that a session knows, as named arrays: enough to make another one of it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import mlx.core as mx

from gemma_mlx.model.cache import SlidingSnapshot
from gemma_mlx.model.decoder import Cache

Key = int | tuple[str, int]
"""What stands at a position: a token id, or the n-th row of a medium by its digest."""


@dataclass(frozen=True)
class Contents:
    """The positions in a session and its rows. `saved_session.py` puts them into a file."""

    keys: Sequence[Key]
    snapshot_offsets: Sequence[int]
    arrays: Mapping[str, mx.array]
    """The rows in use as views of the caches, named "layers.I.NAME" and "snapshots.N.layers.I.NAME"."""

    def of_layer(self, index: int, snapshot: int | None = None) -> dict[str, mx.array]:
        """The arrays of a layer, of the caches or of a snapshot, by NAME alone; each is asked for once."""
        start = f"{_prefix(snapshot)}layers.{index}."
        return {name.removeprefix(start): self.arrays[name] for name in self.arrays if name.startswith(start)}


def named(layers: Iterable[tuple[int, Cache | SlidingSnapshot]], snapshot: int | None = None) -> dict[str, mx.array]:
    """The rows in use of `layers`, (index, cache) each, by their names in `Contents`."""
    return {
        f"{_prefix(snapshot)}layers.{index}.{name}": array
        for index, held in layers
        for name, array in held.rows_in_use().items()
    }


def _prefix(snapshot: int | None) -> str:
    return "" if snapshot is None else f"snapshots.{snapshot}."
