"""Caches filled as if a long prompt had gone through them, in seconds instead of hours.

The rows are random and normed as a layer norms its own, so that their size and scale are real; what they say is not.
They are written into the caches' own buffers in slabs, so that a fill never holds a cache twice.
"""

from __future__ import annotations

from collections.abc import Callable

import mlx.core as mx

from benchmarks.plain_layout import PlainCache
from gemma_mlx.config import TextConfig
from gemma_mlx.model.cache import SlidingCache, SlidingSnapshot
from gemma_mlx.model.decoder import Cache, FullAttention
from gemma_mlx.model.gemma4 import Gemma4
from gemma_mlx.model.shared_rows import make_rows

SLAB_TOKENS = 4096


def fill_caches(
    model: Gemma4, config: TextConfig, caches: list[Cache], tokens: int, context_tokens: int, seed: int
) -> None:
    """Brings each of the empty `caches` to offset `tokens`, with room for `context_tokens` on the full layers.

    The same `seed` writes the same rows, in both layouts.
    """
    mx.random.seed(seed)
    for layer, cache in zip(model.language_model.layers, caches, strict=True):
        if isinstance(cache, SlidingCache):
            _fill_sliding(config, layer.self_attn.k_norm, cache, tokens, model.dtype)
        else:
            assert isinstance(layer.self_attn, FullAttention)
            cache.reserve(context_tokens)
            for start in range(0, tokens, SLAB_TOKENS):
                rows = _full_rows(config, layer.self_attn, min(SLAB_TOKENS, tokens - start), model.dtype)
                cache.update_apart(rows) if isinstance(cache, PlainCache) else cache.update(rows)
                mx.eval(cache.state())
    mx.clear_cache()


def _full_rows(config: TextConfig, attention: FullAttention, tokens: int, dtype: mx.Dtype) -> mx.array:
    """Rows [1, K, L, D + R] as `attention` makes them, but for rope: it turns a random direction into another."""
    shape = (1, config.num_global_key_value_heads, tokens, config.global_head_dim)
    raw = mx.random.normal(shape, dtype=dtype)
    normed = mx.fast.rms_norm(raw, None, config.rms_norm_eps)
    return make_rows(normed, attention.k_norm(raw)[..., : config.rotated_dims])


def _fill_sliding(
    config: TextConfig, k_norm: Callable[[mx.array], mx.array], cache: SlidingCache, tokens: int, dtype: mx.Dtype
) -> None:
    shape = (1, config.num_key_value_heads, min(tokens, config.sliding_window - 1), config.head_dim)
    keys = k_norm(mx.random.normal(shape, dtype=dtype))  # [1, K, W-1, Dh]
    values = mx.fast.rms_norm(mx.random.normal(shape, dtype=dtype), None, config.rms_norm_eps)
    cache.restore(SlidingSnapshot(tokens, keys, values))
    mx.eval(cache.state())
