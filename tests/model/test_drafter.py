"""Our drafter against the stored drafts of transformers in float32, for the tiny random target.

Tolerance 1e-4; observed at most 2.1e-5.
"""

from __future__ import annotations

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest
from mlx.utils import tree_flatten, tree_unflatten
from numpy.typing import NDArray

from gemma_mlx.config import Config
from gemma_mlx.drafter_config import parse_drafter_config
from gemma_mlx.drafter_weights import load_drafter
from gemma_mlx.model.cache import SlidingCache
from gemma_mlx.model.decoder import Cache
from gemma_mlx.model.drafter import Drafter
from gemma_mlx.model.gemma4 import Gemma4
from gemma_mlx.weights import load_model
from tests.drafters import drafter_data, target_config
from tests.golden.cases import HERE, TINY

TOLERANCE = 1e-4
WINDOW = 8
DEPTH = 3
HEADS = ["dense", "ordered"]
Drafts = dict[str, NDArray[np.float32]]


@pytest.fixture(scope="module")
def target(tiny_config: Config) -> Gemma4:
    return load_model(TINY, tiny_config, mx.float32)


@pytest.fixture(scope="module")
def stored() -> Drafts:
    found = mx.load(str(HERE / "drafts.safetensors"))
    assert isinstance(found, dict)
    return {name: np.array(array) for name, array in found.items()}


def paired(head: str, target: Gemma4, config: Config) -> Drafter:
    return load_drafter(HERE / "drafters" / head, TINY, config, target)


def contexts_of(stored: Drafts) -> list[int]:
    return sorted({int(name.split("/")[1]) for name in stored if name.startswith("dense/")})


def read(target: Gemma4, caches: list[Cache], ids: list[int], wrong_ids: list[int]) -> mx.array:
    """A pass over `ids` and drafts that are wrong, which are forgotten: the hidden state of the last of `ids`."""
    hidden = target(target.embed([*ids, *wrong_ids], []), caches)
    for cache in caches:
        cache.rewind(len(wrong_ids))
    return hidden[:, len(ids) - 1 : len(ids)]


def draft(drafter: Drafter, last_id: int, hidden: mx.array, caches: list[Cache]) -> tuple[list[int], Drafts]:
    """DEPTH greedy drafts, without looking at one before all are made."""
    ids, rows = mx.array([[last_id]]), []
    for _ in range(DEPTH):
        logits, hidden = drafter.step(ids, hidden, caches)
        ids = mx.argmax(logits, axis=-1)[:, None]
        rows.append((ids, logits, hidden[0]))
    drafted, logits, states = (mx.concatenate(column) for column in zip(*rows, strict=True))
    return drafted[:, 0].tolist(), {"logits": np.array(logits), "states": np.array(states)}


@pytest.mark.parametrize("head", HEADS)
def test_drafts_are_those_of_the_reference_round_after_round(
    target: Gemma4, tiny_config: Config, stored: Drafts, head: str
) -> None:
    """Rounds at contexts from 1 to 25 windows; each pass of the target also reads wrong drafts, and forgets them."""
    drafter, caches, offset = paired(head, target, tiny_config), target.make_caches(), 0
    text = [int(token) for token in stored["text"]]
    for context in contexts_of(stored):
        hidden = read(target, caches, text[offset:context], [7] * DEPTH)
        offset = context
        sliding = caches[-2]
        assert isinstance(sliding, SlidingCache)
        assert sliding.last(WINDOW + 1)[0].shape[2] == min(context, WINDOW + 1)
        ids, found = draft(drafter, text[context], hidden, caches)
        assert ids == stored[f"{head}/{context}/ids"].tolist()
        for name, array in found.items():
            wanted = stored[f"{head}/{context}/{name}"]
            assert array.shape == wanted.shape
            assert np.abs(array - wanted).max() < TOLERANCE, (context, name)


def test_drafting_leaves_the_targets_caches_as_they_are(target: Gemma4, tiny_config: Config, stored: Drafts) -> None:
    drafter, text = paired("dense", target, tiny_config), [int(token) for token in stored["text"]]
    plain, drafted_over = target.make_caches(), target.make_caches()
    for caches in (plain, drafted_over):
        hidden = read(target, caches, text[:20], [])
        if caches is drafted_over:
            draft(drafter, text[20], hidden, caches)
    for one, other in zip(plain, drafted_over, strict=True):
        assert one.offset == other.offset
        for array, same in zip(one.state(), other.state(), strict=True):
            assert mx.array_equal(array, same).item()
    first, second = (read(target, caches, text[20:25], []) for caches in (plain, drafted_over))
    assert mx.array_equal(first, second).item()


def test_sliding_cache_shows_its_last_rows_and_after_one_token_at_least_the_window() -> None:
    cache = SlidingCache(window=4, slack_tokens=3)
    for position in range(9):
        row = mx.full((1, 1, 1, 2), position)
        cache.update(row, -row)
        keys, values = cache.last(5)
        seen = list(range(max(0, position - keys.shape[2] + 1), position + 1))
        assert keys[0, 0, :, 0].tolist() == seen
        assert values[0, 0, :, 0].tolist() == [-p for p in seen]
        assert len(seen) >= min(position + 1, 4)
    assert cache.last(2)[0].shape[2] == 2


def unfolded(drafter: Drafter) -> dict[str, mx.array]:
    """The tensors of `drafter`, with its packed ones as the numbers they stand for."""
    tensors = dict(tree_flatten(drafter.parameters()))
    for path, module in drafter.named_modules():
        if isinstance(module, nn.QuantizedLinear | nn.QuantizedEmbedding):
            parts = (tensors.pop(f"{path}.{part}") for part in ("weight", "scales", "biases"))
            tensors[f"{path}.weight"] = mx.dequantize(*parts, group_size=module.group_size, bits=module.bits)
    return tensors


def random_weights(module: nn.Module, seed: int) -> None:
    named = [(name, array) for name, array in tree_flatten(module.parameters()) if array.dtype == mx.float32]
    weights = []
    for (name, array), key in zip(named, mx.random.split(mx.random.key(seed), len(named)), strict=True):
        noise = mx.random.normal(array.shape, key=key)
        weights.append((name, 0.5 + 0.1 * noise if array.ndim == 1 else noise * array.shape[-1] ** -0.5))
    module.update(tree_unflatten(weights))


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize(("full_head_dim", "moves"), [(512, True), (64, False)])
def test_packed_drafter_gives_the_drafts_of_the_numbers_it_was_packed_to(
    full_head_dim: int, moves: bool, bits: int
) -> None:
    """Columns of o_proj move as whole groups of 64 where rope's blocks are as wide; elsewhere its input is ordered."""
    config = target_config(global_head_dim=full_head_dim)
    target = Gemma4(config)
    random_weights(target, 1)
    drafter_config = parse_drafter_config(drafter_data(config, use_ordered_embeddings=True))
    packed, whole = Drafter(drafter_config), Drafter(drafter_config)
    random_weights(packed, 2)
    nn.quantize(packed, group_size=64, bits=bits, class_predicate=lambda path, m: hasattr(m, "to_quantized"))
    whole.update(tree_unflatten(list(unfolded(packed).items())))
    for drafter in (packed, whole):
        drafter.pair(target)
    assert (packed.layers[-1].self_attn._output_order is None) is moves
    assert whole.layers[-1].self_attn._output_order is None
    caches = target.make_caches()
    hidden = read(target, caches, list(range(2, 22)), [])
    ids, found = draft(packed, 30, hidden, caches)
    same_ids, wanted = draft(whole, 30, hidden, caches)
    assert ids == same_ids
    for name, array in found.items():
        assert np.abs(array - wanted[name]).max() < TOLERANCE, name


def test_ordered_head_scores_only_the_tokens_of_the_likeliest_centroids(target: Gemma4, tiny_config: Config) -> None:
    drafter = paired("ordered", target, tiny_config)
    caches = target.make_caches()
    hidden = read(target, caches, [2, 5, 6], [])
    logits = np.array(drafter.step(mx.array([[9]]), hidden, caches)[0][0])
    least = logits.min()
    assert (logits == least).sum() == 128 - 3 * 8
    assert np.isclose(np.sort(logits[logits > least])[0] - 1, least, atol=1e-5)


def test_pairing_twice_is_refused(target: Gemma4, tiny_config: Config) -> None:
    with pytest.raises(AssertionError, match="one target only"):
        paired("dense", target, tiny_config).pair(target)
