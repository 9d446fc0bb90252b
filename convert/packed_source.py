"""A packed MLX folder as the source of a conversion: its matrices unpacked a few rows at a time, or copied as they are.

What packing lost stays lost, and packing again loses once more. So a module that is stored as the recipe wants it is
copied, bit for bit, and the others are counted.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import mlx.core as mx

from convert.recipes import Packing
from convert.source_tensor import SLICE_NUMBERS, SourceTensor
from gemma_mlx.quantization import StoredPacking


@dataclass(frozen=True)
class PackedTensor:
    """A matrix that lies packed in the source, and gives its numbers unpacked."""

    parts: tuple[SourceTensor, ...]
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
        # One after the other and not side by side: what comes from a server comes in the order of its bytes.
        scales, *rest = (mx.concatenate(list(part.slices())) for part in self.parts[1:])
        rows_at_once, done = max(1, SLICE_NUMBERS // self.shape[1]), 0
        for codes in self.parts[0].slices():
            for block in mx.split(codes, range(rows_at_once, codes.shape[0], rows_at_once)):
                rows = slice(done, done + block.shape[0])
                yield self._unpacked(block, scales[rows], rest[0][rows] if rest else None)
                done = rows.stop

    def _unpacked(self, codes: mx.array, scales: mx.array, biases: mx.array | None) -> mx.array:
        """The numbers, float32 [rows, columns]."""
        packing = self.packing
        if biases is not None:
            scales, biases = scales.astype(mx.float32), biases.astype(mx.float32)
        return mx.dequantize(codes, scales, biases, packing.group_size, packing.bits, packing.mode, dtype=mx.float32)

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
