"""Groups of numbers become codes: the arithmetic of `packing.py`.

NumPy does it, in the memory of the host: numbers were read to there and codes are written from there, and a GPU of
Apple silicon shares it. So a checkpoint becomes the same bytes on every machine.

NumPy is fast along long rows, and groups are short. So they are stood upright, four numbers wide, because bfloat16
moves by fours (64 bits) four times as fast as by ones; what each group has of its own is then a long row, too:

    a0 a1 a2 a3  a4 a5 a6 a7  ...          a0 a1 a2 a3  b0 b1 b2 b3  ...
    b0 b1 b2 b3  b4 b5 b6 b7  ...    ->    a4 a5 a6 a7  b4 b5 b6 b7  ...
    ...                                    ...
"""

from __future__ import annotations

from typing import Any

import mlx.core as mx
import numpy as np
from numpy.typing import NDArray

from convert.recipes import Packing

Floats = NDArray[np.float32]
WIDTH = 4
"""Of a group that stands upright."""


def round_upright(numbers: Floats, packing: Packing) -> tuple[Floats, Floats, Floats]:
    """Codes [G/4, 4 groups] of upright `numbers` of that shape, and scales and biases [groups] rounded to bfloat16."""
    low, high = _of_groups(np.min, numbers), _of_groups(np.max, numbers)
    levels = 2**packing.bits - 1
    # 16 equal cells with a code in the middle of each are finer than 15 steps from end to end, and nothing is farther
    # than half a step. With many codes for few numbers the ends count for more: a group's two outermost numbers are
    # then exact, and the rounding of the scale is larger than what finer steps gain.
    steps = levels + 1 if 4 * 2**packing.bits <= packing.group_size else levels
    scales = bfloat16((high - low) / steps)
    biases = bfloat16((low + high - levels * scales) / 2)
    codes: Floats = numbers - for_each_number(biases - 0.5 * scales)
    codes /= for_each_number(np.where(scales > 0, scales, np.float32(1)))
    np.clip(codes, 0, levels, out=codes)
    np.floor(codes, out=codes)  # half a step was added above
    return codes, scales, biases


def round_groups(groups: mx.array, packing: Packing) -> tuple[mx.array, mx.array, mx.array]:
    """Codes [..., G] of `groups` [..., G], and their scales and biases [..., 1] rounded to bfloat16; all float32."""
    codes, scales, biases = round_upright(upright(on_host(groups), groups.shape[-1]), packing)
    of_groups = (*groups.shape[:-1], 1)
    lying = mx.array(lying_codes(codes).reshape(groups.shape)).astype(mx.float32)
    return lying, mx.array(scales.reshape(of_groups)), mx.array(biases.reshape(of_groups))


def on_host(numbers: mx.array) -> NDArray[Any]:
    """`numbers` as NumPy sees them, in their shape: bfloat16 as its bits (uint16), all others as float32."""
    if numbers.dtype == mx.bfloat16:
        contiguous = mx.contiguous(numbers, stream=mx.cpu)
        return np.array(contiguous.view(mx.uint16, stream=mx.cpu), copy=False)
    return np.array(numbers.astype(mx.float32, stream=mx.cpu), copy=False)


def upright(rows: NDArray[Any], group_size: int) -> Floats:
    """`rows` as `on_host` gives them, of G numbers a group -> [G/4, 4 groups], one group beside the other."""
    words_of_group = group_size // WIDTH
    if rows.dtype == np.uint16:
        words = np.ascontiguousarray(rows.view(np.uint64).reshape(-1, words_of_group).T)  # [G/4, groups]
        return np.left_shift(words.view(np.uint16), 16, dtype=np.uint32).view(np.float32)  # [G/4, 4 groups]
    numbers = rows.reshape(-1, words_of_group, WIDTH).transpose(1, 0, 2)  # [G/4, groups, 4]
    return np.ascontiguousarray(numbers).reshape(words_of_group, -1)


def lying_codes(codes: Floats) -> NDArray[np.uint8]:
    """Upright codes as bytes [groups, G], in the order of the rows that the groups came from."""
    return np.ascontiguousarray(codes.astype(np.uint8).view(np.uint32).T).view(np.uint8)


def for_each_number(of_groups: Floats) -> Floats:
    """What upright groups have one of, [groups], as a row of theirs, [4 groups]."""
    return np.repeat(of_groups, WIDTH)


def bfloat16(values: Floats) -> Floats:
    """Rounded to bfloat16, ties to even."""
    bits = values.view(np.uint32)
    return ((bits + np.uint32(0x7FFF) + (bits >> 16 & np.uint32(1))) & np.uint32(0xFFFF0000)).view(np.float32)


def _of_groups(extremum: Any, numbers: Floats) -> Floats:
    """The least or largest number of each upright group."""
    of_columns = extremum(numbers, axis=0).reshape(-1, WIDTH)  # [groups, 4]
    found: Floats = extremum(np.ascontiguousarray(of_columns.T), axis=0)
    return found + 0.0  # of 0 and -0 machines take the one or the other, and -0 + 0 is 0
