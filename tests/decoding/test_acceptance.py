"""Drawing with drafts has the distribution of drawing without: chi-square tests at fixed seeds."""

from __future__ import annotations

import math
import secrets
from collections.abc import Callable
from typing import Any, cast

import mlx.core as mx
import numpy as np
import pytest
from numpy.typing import NDArray

from gemma_mlx.decoding import speculate as speculation
from gemma_mlx.decoding.acceptance import matching, speculative_sampling
from gemma_mlx.decoding.depth import FixedDepth
from gemma_mlx.decoding.lookup import PromptLookup
from gemma_mlx.decoding.sampling import Sampler, Sampling
from gemma_mlx.decoding.speculate import Drafting, speculate
from gemma_mlx.model.decoder import Cache
from gemma_mlx.model.gemma4 import Gemma4

Rule = Callable[..., tuple[mx.array, mx.array]]

VOCAB = 6
SETTINGS = [
    Sampling(top_k=0, top_p=1.0),
    Sampling(temperature=0.7, top_k=4, top_p=1.0),
    Sampling(temperature=1.3, top_k=5, top_p=0.85),
]


def accept_always(drafted: mx.array, p: mx.array, q: mx.array, keys: tuple[mx.array, mx.array]) -> Any:
    """A broken rule: it takes every draft."""
    following = mx.random.categorical(mx.log(p[..., -1, :]), key=keys[1])
    return mx.concatenate([drafted, following[..., None]], axis=-1), mx.full(following.shape, drafted.shape[-1])


def resample_from_p(drafted: mx.array, p: mx.array, q: mx.array, keys: tuple[mx.array, mx.array]) -> Any:
    """A broken rule: where a draft is refused, it draws from p and not from what p has more than q."""
    _, accepted = speculative_sampling(drafted, p, q, keys)
    row = mx.take_along_axis(p, accepted[..., None, None], axis=-2)[..., 0, :]
    following = mx.random.categorical(mx.log(row), key=keys[1])
    padded = mx.concatenate([drafted, drafted[..., :1]], axis=-1)
    return mx.where(mx.arange(padded.shape[-1]) < accepted[..., None], padded, following[..., None]), accepted


def p_value(counts: NDArray[np.float64], probabilities: NDArray[np.float64]) -> float:
    """How likely counts this far from what `probabilities` [..., K] make of their sums are (chi-square, over all rows).

    Wilson and Hilferty's normal approximation, good to three digits for ten degrees of freedom and more.
    """
    expected = counts.sum(axis=-1, keepdims=True) * probabilities
    if counts[expected == 0].any():
        return 0.0  # a token came out that a filter forbids
    possible = expected > 0
    statistic = float((np.where(possible, counts - expected, 0) ** 2 / np.where(possible, expected, 1)).sum())
    freedom = int(possible.sum() - (possible.any(axis=-1)).sum())
    spread = 2 / (9 * freedom)
    normal = ((statistic / freedom) ** (1 / 3) - (1 - spread)) / math.sqrt(spread)
    return 0.5 * math.erfc(normal / math.sqrt(2))


def probabilities(logits: mx.array, sampling: Sampling) -> mx.array:
    return mx.exp(Sampler(sampling, VOCAB).scores(logits, None))


def drawn_in_batch(rule: Rule, sampling: Sampling, batch: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Counts [2, n + 1, V] of first tokens and of what follows n accepted ones, and the probabilities they should have.

    A batch of drafts from one q against one p, all independent.
    """
    keys = mx.random.split(mx.random.key(11), 6)
    p = probabilities(1.5 * mx.random.normal((4, VOCAB), key=keys[0]), sampling)  # [n + 1, V]
    q = probabilities(1.5 * mx.random.normal((3, VOCAB), key=keys[1]), sampling)  # [n, V]
    drafted = mx.random.categorical(mx.log(mx.broadcast_to(q, (batch, *q.shape))), key=keys[2])  # [B, n]
    tokens, accepted = rule(
        drafted, mx.broadcast_to(p, (batch, *p.shape)), mx.broadcast_to(q, (batch, *q.shape)), (keys[3], keys[4])
    )
    found, held = np.array(tokens), np.array(accepted)
    counts = np.zeros((4, VOCAB))
    for place in range(4):  # a place has its token where all before it were accepted
        counts[place] = np.bincount(found[held >= place, place], minlength=VOCAB)
    return counts, np.array(p, dtype=np.float64)


@pytest.mark.parametrize("sampling", SETTINGS)
def test_each_place_of_a_draft_has_the_targets_distribution(sampling: Sampling) -> None:
    counts, expected = drawn_in_batch(speculative_sampling, sampling, 60_000)
    assert counts[0].sum() == 60_000
    assert counts[3].sum() > 1_000
    assert p_value(counts, expected) > 0.01


@pytest.mark.parametrize("sampling", SETTINGS)
@pytest.mark.parametrize("broken", [accept_always, resample_from_p])
def test_the_test_finds_a_broken_rule(sampling: Sampling, broken: Rule) -> None:
    assert p_value(*drawn_in_batch(broken, sampling, 60_000)) < 1e-6


def test_acceptance_is_as_high_as_an_exact_rule_can_have_it() -> None:
    p, q = mx.array([[0.5, 0.3, 0.2], [1.0, 0.0, 0.0]]), mx.array([[0.2, 0.3, 0.5]])
    batch = 40_000
    drafted = mx.random.categorical(mx.log(mx.broadcast_to(q, (batch, 1, 3))), key=mx.random.key(1))
    keys = (mx.random.key(2), mx.random.key(3))
    _, accepted = speculative_sampling(
        drafted, mx.broadcast_to(p, (batch, 2, 3)), mx.broadcast_to(q, (batch, 1, 3)), keys
    )
    assert abs(accepted.astype(mx.float32).mean().item() - 0.7) < 0.01  # the sum of min(p, q)


def test_matching_accepts_up_to_the_first_difference() -> None:
    for drafted, expected in [([4, 5, 6], 3), ([4, 5, 0], 2), ([0, 5, 6], 0), ([4, 0, 6], 1), ([], 0)]:
        chosen = mx.array([4, 5, 6, 7][: len(drafted) + 1])
        tokens, accepted = matching(mx.array(drafted, dtype=mx.int32), chosen)
        assert accepted.item() == expected
        assert tokens.tolist() == chosen.tolist()


def test_a_draft_that_equals_the_target_is_never_refused() -> None:
    p = mx.softmax(mx.random.normal((9, 50), key=mx.random.key(0)), axis=-1)
    drafted = mx.random.categorical(mx.log(p[:-1]), key=mx.random.key(1))
    for seed in range(50):
        keys = (mx.random.key(seed), mx.random.key(100 + seed))
        assert speculative_sampling(drafted, p, p[:-1], keys)[1].item() == 8


class Chain:
    """A target whose next token depends on the last one alone, so that each step of a long answer is a sample.

    `apart` is how far its table of logits lies from that of the one with 0: such a one can be its drafter.
    """

    dtype = mx.float32

    def __init__(self, apart: float) -> None:
        keys = mx.random.split(mx.random.key(1), 2)
        self.table = 1.5 * mx.random.normal((VOCAB, VOCAB), key=keys[0])  # logits by the token before
        self.table += apart * mx.random.normal((VOCAB, VOCAB), key=keys[1])

    def embed_tokens(self, ids: mx.array) -> mx.array:
        return (ids[..., None] == mx.arange(VOCAB)).astype(mx.float32)

    def __call__(self, embeddings: mx.array, caches: list[Cache]) -> mx.array:
        return embeddings

    def logits(self, hidden: mx.array) -> mx.array:
        return hidden @ self.table

    def step(self, ids: mx.array, hidden: mx.array, caches: list[Cache]) -> tuple[mx.array, mx.array]:
        """As a drafter."""
        hidden = self.embed_tokens(ids)
        return self.logits(hidden[0]), hidden


def drawn_in_answers(
    sampling: Sampling, count: int, *, with_lookup: bool = False
) -> tuple[NDArray[np.float64], NDArray[np.float64], int]:
    """Counts [V, V] of tokens by the one before, in one long drafted answer; what they should be; accepted tokens."""
    target, drafter = Chain(0.0), Chain(0.5)
    lookup = PromptLookup([0, 1, 2, 3, 4, 5, 0], lambda index: True) if with_lookup else None
    drafting = Drafting(FixedDepth(4), None if with_lookup else drafter, lookup)
    tokens = speculate(
        cast("Gemma4", target),
        [],
        target.embed_tokens(mx.array([[0]])),
        Sampler(sampling, VOCAB),
        frozenset(),
        count,
        drafting=drafting,
    )
    ids = [0, *[token.id for token in tokens]]
    counts = np.zeros((VOCAB, VOCAB))
    np.add.at(counts, (ids[:-1], ids[1:]), 1)
    return counts, np.array(probabilities(target.table, sampling), dtype=np.float64), drafting.tally.accepted_tokens


@pytest.fixture
def _fixed_seed(monkeypatch: pytest.MonkeyPatch) -> None:
    """What an answer without a seed begins with: with one, draws would be matched and not accepted by chance."""
    monkeypatch.setattr(secrets, "randbits", lambda bits: 2024)


@pytest.mark.usefixtures("_fixed_seed")
@pytest.mark.parametrize("sampling", SETTINGS)
def test_an_answer_with_drafts_has_the_targets_distribution(sampling: Sampling) -> None:
    counts, expected, accepted = drawn_in_answers(sampling, 20_000)
    assert counts.sum() == 20_000
    assert 10_000 < accepted < 15_500
    assert p_value(counts, expected) > 0.01


@pytest.mark.usefixtures("_fixed_seed")
def test_filters_and_penalties_are_the_same_on_both_sides() -> None:
    target = Chain(0.0)  # its own drafter: where both see the same, no draft is ever refused
    sampling = Sampling(temperature=0.8, top_k=5, top_p=0.9, repetition_penalty=1.7)
    drafting = Drafting(FixedDepth(5), target)
    tokens = speculate(
        cast("Gemma4", target),
        [],
        target.embed_tokens(mx.array([[0]])),
        Sampler(sampling, VOCAB, [0]),
        frozenset(),
        20,
        drafting=drafting,
    )
    assert len(list(tokens)) == 20
    assert drafting.tally.accepted_tokens == drafting.tally.drafted_tokens


@pytest.mark.usefixtures("_fixed_seed")
def test_the_test_of_answers_finds_a_broken_rule(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(speculation, "speculative_sampling", accept_always)
    counts, expected, _ = drawn_in_answers(SETTINGS[0], 4_000)
    assert p_value(counts, expected) < 1e-6


@pytest.mark.usefixtures("_fixed_seed")
def test_an_answer_with_looked_up_drafts_has_the_targets_distribution() -> None:
    counts, expected, accepted = drawn_in_answers(SETTINGS[0], 8_000, with_lookup=True)
    assert accepted > 2_000
    assert p_value(counts, expected) > 0.01
