from __future__ import annotations

from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest
from numpy.typing import NDArray

from benchmarks.plain_layout import make_plain_caches, use_plain_layout
from gemma_mlx.config import Config
from gemma_mlx.decoding.prefill import forward_chunk
from gemma_mlx.model.cache import FullCache
from gemma_mlx.model.decoder import Cache
from gemma_mlx.model.gemma4 import Gemma4
from gemma_mlx.weights import load_model

IDS = [3 + (7 * i) % 90 for i in range(40)]


@pytest.fixture(scope="module")
def plain_model(tiny_folder: Path, tiny_config: Config) -> Gemma4:
    model = load_model(tiny_folder, tiny_config)
    use_plain_layout(model)
    return model


def hidden_states(model: Gemma4, caches: list[Cache]) -> NDArray[np.float32]:
    """Of `IDS`, in three chunks and then one by one."""
    stops = [16, 17, 33, *range(34, len(IDS) + 1)]
    return np.concatenate([np.array(forward_chunk(model, caches, IDS, (), stop)[0]) for stop in stops])


def test_two_tensors_give_the_same_numbers_as_shared_rows(
    tiny_model: Gemma4, plain_model: Gemma4, tiny_config: Config
) -> None:
    expected = hidden_states(tiny_model, tiny_model.make_caches())
    found = hidden_states(plain_model, make_plain_caches(plain_model, tiny_config.text.global_head_dim))
    assert np.abs(found - expected).max() < 1e-4


def test_two_tensors_hold_a_whole_key_and_a_whole_value(plain_model: Gemma4, tiny_config: Config) -> None:
    text = tiny_config.text
    caches = make_plain_caches(plain_model, text.global_head_dim)
    forward_chunk(plain_model, caches, IDS, (), len(IDS))
    full = [cache for cache in caches if isinstance(cache, FullCache)]
    assert len(full) == text.full_layers
    for cache in full:
        assert [array.shape[-1] for array in cache.state()] == [text.global_head_dim] * 2
        assert cache.nbytes == sum(array.nbytes for array in cache.state())
        cache.rewind(5)
        keys, values = cache.update_apart(mx.zeros((1, 1, 1, text.row_dims)))  # type: ignore[attr-defined]
        assert keys.shape[2] == values.shape[2] == len(IDS) - 4
