"""Affine packing: a group of numbers becomes small integer codes, w = code x scale + bias.

The layout is MLX's, so that `mx.quantized_matmul` and `mx.dequantize` read it: codes of a row side by side in uint32,
the first one in the lowest bits; one scale and one bias for each group, bfloat16 like the model. The arithmetic is in
rounding.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import mlx.core as mx
import numpy as np
from numpy.typing import NDArray

from convert.recipes import Packing
from convert.rounding import Floats, for_each_number, lying_codes, on_host, round_upright, upright
from convert.tally import Tally


@dataclass(frozen=True)
class PackedRows:
    """Some rows of a matrix, packed, and what that cost."""

    codes: mx.array
    """uint32, [rows, columns x bits / 32]."""
    scales: mx.array
    """[rows, columns / group_size], bfloat16, or float32 where the packing says so."""
    biases: mx.array
    """Like `scales`."""
    tally: Tally


def joined(parts: Sequence[PackedRows]) -> PackedRows:
    """The rows of all `parts`, in order."""
    codes, scales, biases = (
        mx.concatenate([getattr(part, name) for part in parts]) for name in ("codes", "scales", "biases")
    )
    return PackedRows(codes, scales, biases, sum((part.tally for part in parts), Tally()))


def pack_rows(rows: mx.array, packing: Packing) -> PackedRows:
    """Packs `rows` [R, columns] with 2, 3, 4, 5, 6 or 8 bits. No number moves by more than half a step, but for what
    rounding scale and bias to bfloat16 adds (at 4 bits 0.07 of a step, at 8 bits one, at the ends of a group's range).
    Takes 12 bytes a number meanwhile: it is for callers to hand a large matrix over in parts.

    Scale and bias are rounded first and the codes derived for the rounded ones, which costs nothing. Relative RMS
    error on 256 x 3840 normal numbers, group 64, beside that of `mx.quantize`
    (`pytest tests/convert -s -k smaller_error_than_mx_quantize` prints it for every group size):

        bits              2      3      4      5      6      8
        pack_rows      0.351  0.176  0.0879 0.0433 0.0214 0.0053
        mx.quantize    0.395  0.190  0.0909 0.0443 0.0222 0.0073
    """
    numbers = upright(on_host(rows), packing.group_size)
    codes, scales, biases = round_upright(numbers, packing)
    words = mx.array(side_by_side(lying_codes(codes).reshape(rows.shape), packing.bits))
    moved = codes  # in its place
    moved *= for_each_number(scales)
    moved += for_each_number(biases)
    moved -= numbers
    # Stretches as long as a row: which numbers stand in which does not matter to a sum.
    tally = Tally(squares(moved.reshape(rows.shape)), squares(numbers.reshape(rows.shape)))
    of_rows = (rows.shape[0], rows.shape[1] // packing.group_size)
    scales, biases = scales.reshape(of_rows), biases.reshape(of_rows)
    return PackedRows(words, _as_bfloat16(scales), _as_bfloat16(biases), tally)


def squares(numbers: Floats) -> float:
    """The sum of squares. Each row's is of its own, for many rows need more digits than float32 has."""
    return float(np.einsum("rc,rc->r", numbers, numbers).sum(dtype=np.float64))


def _as_bfloat16(values: Floats) -> mx.array:
    """`values` that bfloat16 holds, as bfloat16."""
    return mx.array((values.view(np.uint32) >> 16).astype(np.uint16)).view(mx.bfloat16, stream=mx.cpu)


def side_by_side(codes: NDArray[Any], bits: int) -> NDArray[np.uint32]:
    """uint8 codes [R, columns] -> uint32 [R, columns x bits / 32], the first code in the lowest bits.

    Neighbours are joined until whole bytes are full: two codes of 4 bits fill one, eight of 3 bits three.
    """
    width = bits
    while width % 8:  # 3 bits: uint8 -> uint16 of 6 -> uint32 of 12 -> uint64 of 24, which are 3 bytes
        half = 8 * codes.itemsize
        pairs = codes.view(f"u{2 * codes.itemsize}")  # the first of two in the lower half
        codes = (pairs & (1 << width) - 1) | (pairs >> half << width)
        width *= 2
    if width == 8:
        return codes.astype(np.uint8, copy=False).view(np.uint32)
    word_bytes = codes.view(np.uint8).reshape(*codes.shape, codes.itemsize)
    return word_bytes[..., : width // 8].reshape(len(codes), -1).view(np.uint32)
