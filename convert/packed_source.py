"""A packed MLX folder as the source of a conversion: its matrices unpacked a few rows at a time, or copied as they are.

What packing lost stays lost, and packing again loses once more. So a module that is stored as the recipe wants it is
copied, bit for bit, and the others are counted.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import mlx.core as mx

from convert.recipes import Packing
from gemma_mlx.quantization import StoredPacking

UNPACKED_AT_ONCE = 1 << 19
"""Numbers, as for tensors that are stored whole."""


class Part(Protocol):
    """One of the tensors that a packed matrix is stored as."""

    @property
    def name(self) -> str: ...

    @property
    def shape(self) -> tuple[int, ...]: ...

    @property
    def dtype(self) -> str: ...

    @property
    def nbytes(self) -> int: ...

    def slices(self, rows_at_once: int | None = None) -> Iterator[mx.array]:
        """Its rows in order, so many at a time."""
        ...


@dataclass(frozen=True)
class PackedTensor:
    """A matrix that lies packed in the source, and gives its numbers unpacked."""

    parts: tuple[Part, ...]
    """Codes and scales, and in affine packing biases."""
    packing: StoredPacking

    @property
    def name(self) -> str:
        return self.parts[0].name

    @property
    def shape(self) -> tuple[int, int]:
        rows, words = self.parts[0].shape
        return rows, words * 32 // self.packing.bits

    @property
    def dtype(self) -> str:
        return "F32"

    @property
    def nbytes(self) -> int:
        return sum(part.nbytes for part in self.parts)

    def slices(self) -> Iterator[mx.array]:
        rows_at_once = max(1, UNPACKED_AT_ONCE // self.shape[1])
        bits, group_size, mode = self.packing.bits, self.packing.group_size, self.packing.mode
        for codes, scales, *rest in zip(*(part.slices(rows_at_once) for part in self.parts), strict=True):
            biases = rest[0].astype(mx.float32) if rest else None
            scales = scales.astype(mx.float32) if rest else scales
            yield mx.dequantize(codes, scales, biases, group_size, bits, mode, dtype=mx.float32)  # [rows, columns]

    def is_stored_as(self, packing: Packing | None) -> bool:
        """Whether this is how a recipe wants it."""
        return packing is not None and self.packing == StoredPacking(packing.bits, packing.group_size)


@dataclass(frozen=True)
class Repacking:
    """What became of the packed modules of a source, by their number."""

    copied: int = 0
    """Bit for bit."""
    repacked: int = 0
    """Unpacked and packed again."""
    unpacked: int = 0
    """Whole now."""
    with_more_bits: int = 0
    """Of those that were not copied: how many have more bits now."""

    def __str__(self) -> str:
        """In one line."""
        counts = ((self.copied, "copied as they are"), (self.repacked, "packed again"), (self.unpacked, "unpacked"))
        done = ", ".join(f"{count} {what}" for count, what in counts if count)
        lost = " (each rounding loses: the source's and this one's)" if self.repacked else ""
        more = "; more bits do not bring back what the source had lost" if self.with_more_bits else ""
        return f"packed modules of the source: {done}{lost}{more}"


def count_repacking(modules: list[tuple[PackedTensor, Packing | None]]) -> Repacking | None:
    """What becomes of packed modules, each with the packing that is wanted; None where there are none."""
    if not modules:
        return None
    others = [(tensor, wanted) for tensor, wanted in modules if not tensor.is_stored_as(wanted)]
    unpacked = sum(wanted is None for _, wanted in others)
    more = sum(wanted is None or wanted.bits > tensor.packing.bits for tensor, wanted in others)
    return Repacking(len(modules) - len(others), len(others) - unpacked, unpacked, more)
