"""A checkpoint trained for 4 bits keeps its codes: what Google's QAT release stores in bfloat16 lies on a lattice.

Along the input dim, each block of 32 numbers of that release is w = bf16(step x q) with one float32 step and whole
levels q from -8 to 7. Neither is in the file; both are found again here, and stored as they are: code q + 8, scale =
step, bias = -8 x step. (`mx.quantize`, and any rule that takes the extremum for level 8, finds another lattice and
rounds a second time: `python -m benchmarks.lattice`.)

Before that release was rounded, a block's extremum was 8 steps large. A negative one stands on -8; a positive one was
clipped to 7. So one division gives every level, and each number then says where the step lies, for only there does
step x q round to it. Any step that all of them allow gives back all of them; we take the middle:

    w         0.08740   -0.02502   0.01251   ...     the largest is positive: 7 steps of about 0.01249
    q            7         -2         1
    0.08740 / 7            [--------------]
    0.02502 / 2        [------------]
    0.01251 / 1        [------------]
                           [---|----]

Which is also the proof: a block is on the lattice if and only if step and levels give back every number.

Numbers of the same |q|, or of twice as much, allow the same steps: four classes of bounds count, |q| = 1, 3, 5 and 7,
and two bounds that differ are 2**-12 of the step apart at least. So the middle can be cut to 20 significant bits. Then
step x code is exact in float32, and so is code x scale + bias, in whatever order a kernel computes it.
"""

from __future__ import annotations

import mlx.core as mx
import numpy as np
from numpy.typing import NDArray

from convert.packing import PackedRows, joined, side_by_side
from convert.recipes import Packing
from convert.rounding import Floats, bfloat16, round_groups
from convert.tally import Tally

BLOCK = 32
PIECE_NUMBERS = 1 << 18
"""Looked at together: a CPU takes longer for each where there are many more."""
LOWEST, HIGHEST = -8, 7
STEP_BITS = 20
HALF_ULP = 0x8000
"""Half the distance to the next bfloat16, counted in float32 numbers."""
LEAST_NORMAL = 2.0**-126
"""GPUs take what is smaller for 0."""
_DTYPES = {"BF16": mx.bfloat16, "F32": mx.float32}


def pack_lattice_rows(rows: mx.array, packing: Packing) -> PackedRows:
    """Packs `rows` [R, columns] with the levels and steps that they were made of, at 4 bits in groups of 32.

    Levels are exact. With float32 scales so is every number, once rounded to bfloat16; with bfloat16 scales nine of ten
    are, and the others are off by their last bit. A block that is off the lattice is rounded as `pack_rows` would; the
    tally says how many there were.
    """
    rows_at_once = max(1, PIECE_NUMBERS // rows.shape[1])
    starts = range(0, rows.shape[0], rows_at_once)
    packed = joined([_pack_piece(rows[first : first + rows_at_once], packing) for first in starts])
    mx.eval(packed.codes, packed.scales, packed.biases)
    return packed


def _pack_piece(rows: mx.array, packing: Packing) -> PackedRows:
    blocks = rows.astype(mx.bfloat16).astype(mx.float32).reshape(-1, BLOCK)  # [B, 32]
    levels, steps, is_found = _find_steps(blocks)
    scales = _as_stored(steps, packing)
    codes, biases = levels - LOWEST, LOWEST * scales
    others = np.flatnonzero(~np.array(is_found))
    off_lattice = 0
    if len(others):
        places = mx.array(others)
        other_levels, other_steps, is_on = (mx.array(part) for part in search_steps(np.array(blocks[places])))
        other_scales = _as_stored(other_steps, packing)
        rounded_codes, rounded_scales, rounded_biases = round_groups(blocks[places], packing)
        codes[places] = mx.where(is_on, other_levels - LOWEST, rounded_codes)
        scales[places] = mx.where(is_on, other_scales, rounded_scales)
        biases[places] = mx.where(is_on, LOWEST * other_scales, rounded_biases)
        off_lattice = len(others) - int(np.array(is_on).sum())
    tally = _tally(blocks, codes * scales + biases, off_lattice)
    row_count = rows.shape[0]
    words = mx.array(side_by_side(np.array(codes.astype(mx.uint8)).reshape(row_count, -1), packing.bits))
    scales, biases = (part.astype(_DTYPES[packing.scale_dtype]).reshape(row_count, -1) for part in (scales, biases))
    mx.eval(words, scales, biases)
    return PackedRows(words, scales, biases, tally)


def _as_stored(steps: mx.array, packing: Packing) -> mx.array:
    return steps.astype(_DTYPES[packing.scale_dtype]).astype(mx.float32)


def _tally(blocks: mx.array, stored: mx.array, off_lattice: int) -> Tally:
    rounded = stored.astype(mx.bfloat16)
    same = (rounded == blocks.astype(mx.bfloat16)).sum()
    deviation = (mx.abs(rounded.astype(mx.float32) - blocks) / mx.maximum(mx.abs(blocks), LEAST_NORMAL)).max()
    error, squares = mx.square(stored - blocks).sum(axis=1), mx.square(blocks).sum(axis=1)
    mx.eval(error, squares, same, deviation)
    error_sum, squared_sum = (float(np.array(part).sum(dtype=np.float64)) for part in (error, squares))
    return Tally(
        squared_error=error_sum,
        squared_sum=squared_sum,
        blocks=blocks.shape[0],
        blocks_off_lattice=off_lattice,
        numbers=blocks.size,
        same_numbers=int(np.array(same)),
        largest_deviation=float(np.array(deviation)),
    )


def _find_steps(blocks: mx.array) -> tuple[mx.array, mx.array, mx.array]:
    """Levels [B, 32], steps [B, 1] and whether they give back the block [B], for `blocks` as the release has them."""
    low, high = blocks.min(axis=1, keepdims=True), blocks.max(axis=1, keepdims=True)
    extremum = mx.maximum(-low, high)
    extreme_level = mx.where(-low > high, -LOWEST, HIGHEST)
    levels = mx.round(blocks * (extreme_level / mx.where(extremum > 0, extremum, 1)))
    sizes, bits = mx.abs(levels), mx.abs(blocks).view(mx.uint32)
    # A number on level 0 bounds nothing: its least step is 0, and 1 / step may be 0.
    least = (mx.maximum(bits, HALF_ULP) - HALF_ULP).view(mx.float32) / mx.maximum(sizes, 1)
    inverse = sizes / mx.maximum((bits + HALF_ULP).view(mx.float32), LEAST_NORMAL)
    middle = (least.max(axis=1, keepdims=True) + 1 / inverse.max(axis=1, keepdims=True)) / 2
    unit = 1 << 24 - STEP_BITS
    cut = ((middle.view(mx.uint32) + unit // 2) & (0x1_0000_0000 - unit)).view(mx.float32)
    steps = mx.where(extremum > 0, cut, 0)
    is_found = ((levels * steps).astype(mx.bfloat16) == blocks.astype(mx.bfloat16)).all(axis=1)
    return levels, steps, is_found


def search_steps(blocks: Floats) -> tuple[Floats, Floats, NDArray[np.bool_]]:
    """Levels [B, 32], steps [B, 1] and whether they give back the block [B, 1], for `blocks` [B, 32] of any origin.

    The extremum may be on any level, and numbers may be smaller than 2**-126; those below 2**-129 or so have too few
    bits left in bfloat16 for their levels to be told. On what device MLX works does not matter.
    """
    levels, steps = np.zeros_like(blocks), np.zeros_like(blocks[:, :1])
    is_found = np.zeros((len(blocks), 1), dtype=bool)
    extremum = np.abs(blocks).max(axis=1, keepdims=True).astype(np.float64)
    for extreme_level in range(-LOWEST, 0, -1):
        todo = np.flatnonzero(~is_found[:, 0])
        step = np.where(extremum > 0, extremum, 1)[todo] / extreme_level
        levels[todo] = np.clip(np.rint(blocks[todo] / step), LOWEST, HIGHEST)
        steps[todo] = _middle_step(blocks[todo], levels[todo])
        is_found[todo] = (bfloat16(levels[todo] * steps[todo]) == blocks[todo]).all(axis=1, keepdims=True)
    return levels, steps, is_found


def _middle_step(blocks: Floats, levels: Floats) -> Floats:
    """The middle [B, 1] of the steps that give back the blocks with these `levels`, if there are any."""
    sizes, bits = np.abs(levels), np.abs(blocks).view(np.uint32)
    least, most = np.maximum(bits, HALF_ULP) - np.uint32(HALF_ULP), bits + np.uint32(HALF_ULP)
    low, high = np.zeros(sizes.shape), np.full(sizes.shape, np.inf)
    np.divide(least.view(np.float32), sizes, out=low, where=sizes > 0)
    np.divide(most.view(np.float32), sizes, out=high, where=sizes > 0)
    middle = (low.max(axis=1, keepdims=True) + high.min(axis=1, keepdims=True)) / 2
    middle[~np.isfinite(middle)] = 0
    mantissa, exponent = np.frexp(middle)
    cut: Floats = np.ldexp(np.rint(mantissa * 2**STEP_BITS), exponent - STEP_BITS).astype(np.float32)
    return cut
