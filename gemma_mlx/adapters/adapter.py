"""What an adapter changes, whoever trained it.

LoRA adds a product of two narrow matrices to a matrix W [rows, columns] of the model; DoRA gives each row of the sum a
length of its own beside that:

    LoRA   W' = W + scale x up @ down                              up [rows, rank], down [rank, columns]
    DoRA   W' = magnitude x (W + scale x up @ down) / |its row|    magnitude [rows]
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import mlx.core as mx

from gemma_mlx.checkpoint import TensorInfo


@dataclass(frozen=True)
class LowRank:
    """How one matrix [rows, columns] changes. The arrays may be lazy: they are read when they are evaluated."""

    up: mx.array
    """[rows, rank]."""
    down: mx.array
    """[rank, columns]."""
    scale: float
    magnitude: mx.array | None = None
    """[rows], the length that DoRA gives each row; None for LoRA."""

    @property
    def shape(self) -> tuple[int, int]:
        """Of the matrix that it changes."""
        return self.up.shape[0], self.down.shape[1]

    @property
    def rank(self) -> int:
        return self.down.shape[0]

    @property
    def numbers(self) -> int:
        """How many numbers a model holds for it."""
        return self.up.size + self.down.size + (0 if self.magnitude is None else self.magnitude.size)

    def added_to(self, rows: mx.array, first: int) -> mx.array:
        """`rows` [R, columns] of the matrix, of which they are number `first` and on, with the product, in float32."""
        up = self.up[first : first + rows.shape[0]].astype(mx.float32)
        return rows.astype(mx.float32) + self.scale * (up @ self.down.astype(mx.float32))

    def row_factors(self, changed: mx.array, first: int) -> mx.array:
        """By what DoRA multiplies each of the rows that `added_to` gave: [R]. A row of zeros gives infinity."""
        assert self.magnitude is not None
        magnitude = self.magnitude[first : first + changed.shape[0]].astype(mx.float32)
        return magnitude / mx.linalg.norm(changed, axis=1)


@dataclass(frozen=True)
class Adapter:
    """All that an adapter changes, by the canonical names of `gemma_mlx/names.py`."""

    folder: Path
    kind: str
    """ "LoRA", "DoRA" or "full": whole tensors and nothing else."""
    updates: dict[str, LowRank]
    """By the path of the module."""
    whole: dict[str, TensorInfo]
    """Tensors that stand in place of the model's own, by their name."""
    digest: str
    """Tells its numbers from those of any other adapter; a sha256 in hex."""

    @property
    def name(self) -> str:
        return self.folder.resolve().name

    def nbytes(self, item_bytes: int) -> int:
        """What the updates take in memory in a computing type of `item_bytes`; whole tensors count with the model's."""
        return item_bytes * sum(update.numbers for update in self.updates.values())

    @property
    def whole_numbers(self) -> int:
        """How many numbers its whole tensors have."""
        return sum(math.prod(info.shape) for info in self.whole.values())
