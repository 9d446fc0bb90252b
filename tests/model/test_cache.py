"""Any way of reaching a state gives the logits of one cold pass; what cannot be exact raises and changes nothing."""

from __future__ import annotations

from collections.abc import Iterator

import mlx.core as mx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from gemma_mlx.config import Config
from gemma_mlx.model.cache import FullCache, RewindError, SlidingCache, SlidingSnapshot
from gemma_mlx.model.decoder import Cache
from gemma_mlx.model.gemma4 import Gemma4
from gemma_mlx.weights import load_model
from tests.allocations import settled_bytes
from tests.golden.cases import TINY, Case

TOLERANCE = 1e-4
WINDOW, SLACK = 8, 3
CUTS = [WINDOW - 1, WINDOW, WINDOW + 1, WINDOW + SLACK, 2 * WINDOW + 3]
TOKENS = 28


@pytest.fixture(scope="module")
def model(tiny_config: Config) -> Gemma4:
    return load_model(TINY, tiny_config, mx.float32)


@pytest.fixture(scope="module")
def ids(cases: dict[str, Case]) -> list[int]:
    return cases["text"].ids[:TOKENS]


@pytest.fixture(scope="module")
def cold(model: Gemma4, ids: list[int]) -> NDArray[np.float32]:
    """The logits of one cold pass, [TOKENS, V]."""
    return np.array(model.logits(model(model.embed(ids, []), model.make_caches()))[0])


def small_caches(model: Gemma4) -> list[Cache]:
    """Caches with little slack and small steps, so that they move and grow often."""
    return [
        SlidingCache(WINDOW, SLACK) if isinstance(cache, SlidingCache) else FullCache(step_tokens=5)
        for cache in model.make_caches()
    ]


def poison(caches: list[Cache]) -> None:
    """Puts NaN into every row that holds no position, so that reading one shows."""
    for cache in caches:
        used = cache.offset - (cache.first if isinstance(cache, SlidingCache) else 0)
        for buffer in cache.state():
            buffer[..., used:, :] = mx.array(float("nan"))


def advance(model: Gemma4, caches: list[Cache], ids: list[int]) -> NDArray[np.float32]:
    """The logits of `ids` [L, V], after which the caches' unused rows are poisoned."""
    logits = np.array(model.logits(model(model.embed(ids, []), caches))[0])
    poison(caches)
    return logits


def others(ids: list[int], count: int) -> list[int]:
    """`count` tokens that are not the ones that follow."""
    return [(token + 7) % 100 + 3 for token in (ids * 2)[:count]]


def rest_is_cold(model: Gemma4, caches: list[Cache], ids: list[int], cold: NDArray[np.float32]) -> None:
    """Going on from the caches' offset, token by token and then at once, gives the logits of the cold pass."""
    cut = caches[0].offset
    assert {cache.offset for cache in caches} == {cut}
    found = [advance(model, caches, ids[i : i + 1]) for i in range(cut, cut + 3)]
    found.append(advance(model, caches, ids[cut + 3 :]))
    assert np.abs(np.concatenate(found) - cold[cut:]).max() < TOLERANCE


@pytest.mark.parametrize("cut", CUTS)
@pytest.mark.parametrize("chunk_tokens", [1, SLACK, SLACK + 1, WINDOW, 100])
def test_chunks_give_the_logits_of_a_cold_pass(
    model: Gemma4, ids: list[int], cold: NDArray[np.float32], cut: int, chunk_tokens: int
) -> None:
    caches = small_caches(model)
    for start in range(0, cut, chunk_tokens):
        advance(model, caches, ids[start : min(start + chunk_tokens, cut)])
    rest_is_cold(model, caches, ids, cold)


@pytest.mark.parametrize("cut", CUTS)
@pytest.mark.parametrize("back", [1, 2, SLACK])
def test_rewind_restores_full_window(
    model: Gemma4, ids: list[int], cold: NDArray[np.float32], cut: int, back: int
) -> None:
    """A chunk of at most the slack can always be taken back, as drafting needs, also with the window full."""
    caches = small_caches(model)
    advance(model, caches, ids[:cut])
    advance(model, caches, others(ids, back))
    for cache in caches:
        cache.rewind(back)
    poison(caches)
    rest_is_cold(model, caches, ids, cold)


@pytest.mark.parametrize("cut", CUTS[1:])
def test_inexact_rewind_raises_and_changes_nothing(
    model: Gemma4, ids: list[int], cold: NDArray[np.float32], cut: int
) -> None:
    caches = small_caches(model)
    advance(model, caches, ids[:cut])
    for cache in caches:
        if isinstance(cache, SlidingCache):
            rows = cache.offset - cache.first
            least = next(n for n in range(cut + 1) if rows - n < min(cut - n, WINDOW - 1)) if rows < cut else cut + 1
            assert not cache.can_rewind(least)
            with pytest.raises(RewindError, match=f"cannot rewind {least} tokens"):
                cache.rewind(least)
    rest_is_cold(model, caches, ids, cold)


@pytest.mark.parametrize("cut", CUTS)
def test_snapshot_restores_what_a_long_detour_lost(
    model: Gemma4, ids: list[int], cold: NDArray[np.float32], cut: int
) -> None:
    caches = small_caches(model)
    advance(model, caches, ids[:cut])
    snapshots = {i: cache.snapshot() for i, cache in enumerate(caches) if isinstance(cache, SlidingCache)}
    for detour in (2 * WINDOW, 5):  # twice: a snapshot stays usable
        advance(model, caches, others(ids, detour))
        for index, cache in enumerate(caches):
            if isinstance(cache, SlidingCache):
                cache.restore(snapshots[index])
            else:
                cache.rewind(detour)
        poison(caches)
    rest_is_cold(model, caches, ids, cold)


@pytest.mark.parametrize("cut", CUTS)
def test_snapshot_of_a_moment_ago(model: Gemma4, ids: list[int], cold: NDArray[np.float32], cut: int) -> None:
    caches = small_caches(model)
    advance(model, caches, ids[:cut])
    advance(model, caches, others(ids, 2))
    for cache in caches:
        if isinstance(cache, SlidingCache):
            snapshot = cache.snapshot(back_tokens=2)
            assert snapshot.offset == cut
            cache.restore(snapshot)
        else:
            cache.rewind(2)
    poison(caches)
    rest_is_cold(model, caches, ids, cold)


def positions(start: int, count: int) -> mx.array:
    """Rows [1, 1, count, 2] that hold their own position."""
    return mx.broadcast_to(mx.arange(start, start + count)[None, None, :, None], (1, 1, count, 2)).astype(mx.float32)


def rows_of(array: mx.array) -> list[int]:
    assert (array[..., 0] == array[..., 1]).all().item()
    return [int(value) for value in np.array(array[0, 0, :, 0])]


Step = tuple[str, int]
STEPS = st.lists(
    st.tuples(st.sampled_from(["append", "append", "rewind", "snapshot", "restore"]), st.integers(0, 14)), max_size=25
)


@settings(max_examples=60, deadline=None)
@given(st.integers(2, 6), st.integers(1, 4), STEPS)
def test_sliding_cache_holds_every_position_that_may_be_seen(window: int, slack: int, steps: list[Step]) -> None:
    cache, offset, snapshots = SlidingCache(window, slack), 0, list[SlidingSnapshot]()
    for name, number in steps:
        poison([cache])
        if name == "append" and number:
            keys, values, first = cache.update(positions(offset, number), -positions(offset, number))
            assert rows_of(keys) == [-row for row in rows_of(values)] == list(range(first, offset + number))
            assert first <= max(0, offset - window + 1)
            offset += number
        elif name == "rewind":
            if cache.can_rewind(number):
                cache.rewind(number)
                offset -= number
            else:
                assert number > min(slack, offset) or number > offset - cache.first - (window - 1)
                with pytest.raises(RewindError):
                    cache.rewind(number)
        elif name == "snapshot" and offset:
            snapshots.append(cache.snapshot())
        elif name == "restore" and snapshots:
            snapshot = snapshots[number % len(snapshots)]
            cache.restore(snapshot)
            offset = snapshot.offset
        assert cache.offset == offset
    assert cache.nbytes in (0, 2 * (window - 1 + slack) * 2 * 4)


def appended(cache: FullCache, counts: list[int]) -> Iterator[list[int]]:
    for count in counts:
        yield rows_of(cache.update(positions(cache.offset, count)))


def test_full_cache_keeps_every_position_while_it_grows() -> None:
    cache = FullCache(step_tokens=4)
    for rows in appended(cache, [3, 1, 1, 9, 2]):
        assert rows == list(range(cache.offset))
    assert cache.nbytes == 16 * 2 * 4


def test_full_cache_grows_to_what_was_reserved() -> None:
    cache = FullCache(step_tokens=4)
    cache.reserve(10)
    list(appended(cache, [1]))
    assert cache.nbytes == 12 * 2 * 4


def test_full_cache_forgets_what_was_rewound() -> None:
    cache = FullCache(step_tokens=4)
    list(appended(cache, [7]))
    cache.rewind(3)
    assert rows_of(cache.update(-positions(4, 2))) == [0, 1, 2, 3, -4, -5]
    for tokens in (7, -1):
        with pytest.raises(RewindError, match=f"cannot rewind {tokens} tokens of 6"):
            cache.rewind(tokens)
    assert cache.offset == 6


def test_what_attention_was_given_outlives_the_next_update() -> None:
    """Evaluation is lazy: rows handed out before an append must not show what was appended over a rewind."""
    cache = SlidingCache(4, 4)
    before, _, _ = cache.update(positions(0, 5), positions(0, 5))
    cache.rewind(2)
    cache.update(-positions(3, 2), positions(3, 2))
    assert rows_of(before) == [0, 1, 2, 3, 4]


def test_a_snapshot_of_a_full_buffer_is_a_copy() -> None:
    cache = SlidingCache(WINDOW, slack_tokens=0)
    for token in range(WINDOW + 3):
        cache.update(mx.full((1, 2, 1, 4), token), mx.full((1, 2, 1, 4), token))
    mx.eval(cache.state())
    before_bytes = settled_bytes()
    snapshot = cache.snapshot()
    mx.eval(snapshot.keys, snapshot.values)
    assert mx.get_active_memory() - before_bytes >= snapshot.nbytes == cache.nbytes
