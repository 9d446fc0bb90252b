"""Rotary positions, both kinds.

Sliding layers turn the whole head: pairs (i, i + 128) of 256 dims at theta 10,000. Full layers are "proportional": of
512 dims only the pairs (i, i + 256) with i < 64 turn, at theta 1,000,000 with the exponent still over 512. A full
layer's head is stored with those 128 dims first (`shared_rows.py`), so that both kinds turn the leading `dims`.
"""

from __future__ import annotations

import mlx.core as mx
import numpy as np


class Rope:
    """Turns the first `dims` of each head by its position; pair (i, i + dims/2) at wavelength theta^(2i/exponent_dims).

    The wavelengths are those of the reference within one unit of float32's last place: at position 200,000 an error
    of 1e-6 in one turns a pair a fifth of a radian too far.
    """

    def __init__(self, dims: int, theta: float, exponent_dims: int) -> None:
        self.dims = dims
        self._wavelengths = mx.array((theta ** (np.arange(0, dims, 2) / exponent_dims)).astype(np.float32))

    def __call__(self, x: mx.array, offset: int) -> mx.array:
        """`x` [B, heads, L, at least dims] with its first position at `offset`; same shape."""
        return mx.fast.rope(
            x, self.dims, traditional=False, base=None, scale=1.0, offset=offset, freqs=self._wavelengths
        )
