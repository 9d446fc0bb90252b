"""The full layers as everybody else runs them: two tensors, K and V, and one attention over all queries of a chunk.

This is what the shared rows are measured against: the same weights and the same numbers, but 2 x 512 values a token and
layer instead of 640, and scores of heads x chunk x context where MLX has no fused kernel for them. The buffers get
their final size at once, as ours do; peers grow theirs by 256 rows, and hold a layer's tensor twice while they copy.
"""

from __future__ import annotations

import mlx.core as mx
import mlx.nn as nn

from gemma_mlx.model.cache import FullCache
from gemma_mlx.model.decoder import Cache, FullAttention
from gemma_mlx.model.gemma4 import Gemma4
from gemma_mlx.model.masks import QueryBlock
from gemma_mlx.model.shared_rows import make_rows


class PlainCache(FullCache):
    """Keys and values of a full layer in two buffers, each `head_dims` wide."""

    def __init__(self, head_dims: int) -> None:
        super().__init__()
        self._head_dims = head_dims
        self._values = FullCache()

    @property
    def nbytes(self) -> int:
        return super().nbytes + self._values.nbytes

    def reserve(self, tokens: int) -> None:
        super().reserve(tokens)
        self._values.reserve(tokens)

    def update_apart(self, rows: mx.array) -> tuple[mx.array, mx.array]:
        """Takes shared `rows` [B, K, L, D + R] apart and appends them; returns all keys and values, [B, K, S, D]."""
        keys = self.update(rows[..., : self._head_dims])
        return keys, self._values.update(rows[..., -self._head_dims :])

    def rewind(self, tokens: int) -> None:
        super().rewind(tokens)
        self._values.rewind(tokens)

    def state(self) -> list[mx.array]:
        return super().state() + self._values.state()


class PlainFullAttention(FullAttention):
    """A full layer's attention, with the weights of `shared`, over a `PlainCache`."""

    def __init__(self, shared: FullAttention) -> None:
        nn.Module.__init__(self)  # not FullAttention's, which would make weights
        vars(self).update(vars(shared))
        dict.update(self, shared)

    def __call__(self, x: mx.array, cache: Cache, blocks: list[QueryBlock]) -> mx.array:
        assert isinstance(cache, PlainCache)
        offset, (batch, length, _) = cache.offset, x.shape
        queries = self.q_norm(self.q_proj(x).reshape(batch, length, self._heads, -1)).swapaxes(1, 2)  # [B, H, L, D]
        queries = self._rope(queries.astype(x.dtype), offset)
        raw = self.k_proj(x).reshape(batch, length, self._kv_heads, -1).swapaxes(1, 2)  # [B, K, L, D]
        turned = self._rope(self.k_norm(raw)[..., : self._rotated_dims], offset)  # [B, K, L, R]
        keys, values = cache.update_apart(make_rows(mx.fast.rms_norm(raw, None, self._eps), turned))
        mask = "causal" if length > 1 else None
        output = mx.fast.scaled_dot_product_attention(queries, keys, values, scale=1.0, mask=mask)
        output = output.swapaxes(1, 2).reshape(batch, length, -1)  # [B, L, H*D]
        if self._output_order is not None:
            output = output[..., self._output_order]
        return self.o_proj(output)


def use_plain_layout(model: Gemma4) -> None:
    """From now on the full layers of `model` take caches of `make_plain_caches`."""
    for layer in model.language_model.layers:
        if isinstance(layer.self_attn, FullAttention):
            layer.self_attn = PlainFullAttention(layer.self_attn)


def make_plain_caches(model: Gemma4, head_dims: int) -> list[Cache]:
    """One empty cache per layer, those of the full layers in two tensors."""
    return [PlainCache(head_dims) if isinstance(cache, FullCache) else cache for cache in model.make_caches()]
