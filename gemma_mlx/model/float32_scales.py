"""Packed layers that keep their scales and biases in float32 while all else is bfloat16.

A checkpoint trained for 4 bits is exact with such scales and only with such (`convert/lattice.py`). MLX then computes
the whole product in float32; it comes back here in the type that went in. That costs 6 bits per weight instead of 5,
and a float32 copy of what goes into each layer and comes out of it.
"""

from __future__ import annotations

import mlx.core as mx
import mlx.nn as nn


class Float32ScalesLinear(nn.QuantizedLinear):
    """[..., in] -> [..., out] in the type of the input."""

    def __call__(self, x: mx.array) -> mx.array:
        return super().__call__(x).astype(x.dtype)


class Float32ScalesEmbedding(nn.QuantizedEmbedding):
    """Its rows are float32; as a linear layer it answers in the type of the input."""

    def as_linear(self, x: mx.array) -> mx.array:
        return super().as_linear(x).astype(x.dtype)
