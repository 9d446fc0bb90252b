from __future__ import annotations

import mlx.core as mx
import numpy as np

from benchmarks.plain_layout import make_plain_caches
from benchmarks.random_rows import SLAB_TOKENS, fill_caches
from gemma_mlx.config import Config
from gemma_mlx.model.cache import FullCache, SlidingCache
from gemma_mlx.model.gemma4 import Gemma4
from tests.allocations import settled_bytes


def test_filled_caches_stand_where_a_prompt_would_have_left_them(tiny_model: Gemma4, tiny_config: Config) -> None:
    text = tiny_config.text
    for tokens in (3, text.sliding_window, 100):
        caches = tiny_model.make_caches()
        fill_caches(tiny_model, text, caches, tokens, tokens + 10, seed=1)
        assert {cache.offset for cache in caches} == {tokens}
        window = min(tokens, text.sliding_window - 1)
        assert {cache.offset - cache.first for cache in caches if isinstance(cache, SlidingCache)} == {window}
        hidden = tiny_model(tiny_model.embed_tokens(mx.array([[5]])), caches)
        assert np.isfinite(np.array(hidden)).all()


def test_random_rows_are_of_the_size_of_real_ones(tiny_model: Gemma4, tiny_config: Config) -> None:
    text = tiny_config.text
    caches = tiny_model.make_caches()
    fill_caches(tiny_model, text, caches, 64, 64, seed=1)
    for cache in caches:
        if isinstance(cache, FullCache):
            value = np.array(cache.state()[0])[0, 0, :64, text.rotated_dims :]
            np.testing.assert_allclose((value**2).mean(-1), 1, atol=1e-3)


def test_both_layouts_are_filled_with_the_same_rows(tiny_model: Gemma4, tiny_config: Config) -> None:
    text = tiny_config.text
    shared, plain = tiny_model.make_caches(), make_plain_caches(tiny_model, text.global_head_dim)
    for caches in (shared, plain):
        fill_caches(tiny_model, text, caches, 50, 50, seed=7)
    for ours, theirs in zip(shared, plain, strict=True):
        if isinstance(ours, FullCache):
            rows, (keys, values) = np.array(ours.state()[0]), [np.array(array) for array in theirs.state()]
            np.testing.assert_array_equal(rows[..., : text.global_head_dim], keys)
            np.testing.assert_array_equal(rows[..., text.rotated_dims :], values)


def test_a_fill_never_holds_a_cache_twice(tiny_model: Gemma4, tiny_config: Config) -> None:
    tokens = 16 * SLAB_TOKENS
    caches = tiny_model.make_caches()
    before = settled_bytes()
    fill_caches(tiny_model, tiny_config.text, caches, tokens, tokens, seed=1)
    held = sum(cache.nbytes for cache in caches)
    layer = max(cache.nbytes for cache in caches)
    assert mx.get_active_memory() - before < 1.02 * held
    assert mx.get_peak_memory() - before < held + layer // 2
