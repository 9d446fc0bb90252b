"""Bicubic resizing of 8-bit pictures, antialiased, equal bit for bit to the one the reference processor uses.

The reference resizes uint8 tensors with torch (`interpolate(mode="bicubic", antialias=True)`), which works with
16-bit weights: Pillow's bicubic is the same filter with finer weights and differs by up to 2 levels of 255 in
about one value of 150. The same integers are computed here; float64 products hold them exactly.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

_SUPPORT = 2.0  # The cubic kernel reaches two samples to either side.
_MAX_PRECISION_BITS = 22
_BLOCK = 16  # Outputs per product; with more of them, more of the band of weights is zero.
_PRODUCT = 1 << 18  # Multiplications per product: it stays in the cache, and on one thread, of which BLAS asks no more.


def resize_bicubic(pixels: NDArray[np.uint8], width_px: int, height_px: int) -> NDArray[np.uint8]:
    """`pixels` [height, width, channels] at the new size. Returned as it is where the size is already right."""
    if pixels.shape[1] != width_px:
        pixels = _resize_rows(pixels.swapaxes(0, 1), width_px).swapaxes(0, 1)
    if pixels.shape[0] != height_px:
        pixels = _resize_rows(pixels, height_px)
    return pixels


def _resize_rows(pixels: NDArray[np.uint8], size: int) -> NDArray[np.uint8]:
    """[rows, columns, channels] -> [size, columns, channels]."""
    rows, columns, channels = pixels.shape
    first, weights, precision_bits = _integer_weights(rows, size)
    taps = weights.shape[1]
    resized = np.empty((size, columns, channels), dtype=np.uint8)
    for start in range(0, size, _BLOCK):
        stop = min(start + _BLOCK, size)
        low, high = int(first[start]), min(rows, int(first[stop - 1]) + taps)
        band = np.zeros((stop - start, high - low + taps))
        for index, begin in enumerate(first[start:stop] - low):
            band[index, begin : begin + taps] = weights[start + index]
        band = band[:, : high - low]  # What was cut off holds zeros: taps beyond the last row.
        step = max(1, _PRODUCT // (band.size * channels))
        for left in range(0, columns, step):
            source = pixels[low:high, left : left + step].astype(np.float64).reshape(high - low, -1)
            total = band @ source + float(1 << (precision_bits - 1))  # [block, step x channels]
            levels = np.clip(np.floor(np.ldexp(total, -precision_bits)), 0, 255)
            resized[start:stop, left : left + step] = levels.reshape(stop - start, -1, channels)
    return resized


def _integer_weights(rows: int, size: int) -> tuple[NDArray[np.int64], NDArray[np.float64], int]:
    """For each output: its first source row, and its weights [size, taps] as integers scaled by 2**precision."""
    scale = rows / size
    support = _SUPPORT * max(scale, 1.0)
    centers = scale * (np.arange(size) + 0.5)
    first = np.maximum((centers - support + 0.5).astype(np.int64), 0)
    count = np.minimum((centers + support + 0.5).astype(np.int64), rows) - first
    tap = np.arange(math.ceil(support) * 2 + 1)
    inverse_scale = 1.0 / scale if scale >= 1.0 else 1.0
    weights = _cubic((tap + first[:, None] - centers[:, None] + 0.5) * inverse_scale)  # [size, taps]
    weights[tap >= count[:, None]] = 0.0
    weights /= weights.cumsum(axis=1)[:, -1:]  # Summed left to right, as the reference does.

    # As many bits as leave the largest weight a signed 16-bit integer.
    largest = float(weights.max())
    bits = 0
    while bits < _MAX_PRECISION_BITS and int(0.5 + largest * (1 << (bits + 1))) < 1 << 15:
        bits += 1
    scaled = np.ldexp(weights, bits)
    return first, np.trunc(scaled + np.where(scaled < 0, -0.5, 0.5)), bits


def _cubic(x: NDArray[np.float64]) -> NDArray[np.float64]:
    """Keys' cubic convolution kernel with a = -0.5."""
    a = -0.5
    x = np.abs(x)
    near = ((a + 2.0) * x - (a + 3.0)) * x * x + 1.0
    far = (((x - 5.0) * x + 8.0) * x - 4.0) * a
    return np.where(x < 1.0, near, np.where(x < 2.0, far, 0.0))
