from __future__ import annotations

import math
from typing import Any, cast

import mlx.core as mx
import numpy as np
import pytest

from gemma_mlx.decoding.sampling import Sampler, Sampling, best_logprobs, filtered
from gemma_mlx.errors import UsageError

# Probabilities 0.5, 0.25, 0.15, 0.07, 0.03 of the ids 3, 0, 4, 1, 2.
LOGITS = mx.array([math.log(p) for p in (0.25, 0.07, 0.03, 0.5, 0.15)])


def allowed(**settings: Any) -> dict[int, float]:
    """The ids that may be drawn from LOGITS, each with its probability."""
    ids, scores = filtered(LOGITS, Sampling(**{"top_k": 0, "top_p": 1.0, **settings}))
    weights = cast("list[float]", mx.softmax(scores).tolist())
    return {i: round(p, 4) for i, p in zip(cast("list[int]", ids.tolist()), weights, strict=True) if p > 0}


def drawn(sampling: Sampling, count: int) -> list[int]:
    sampler = Sampler(sampling, vocab_size=5)
    return [int(cast("int", sampler(LOGITS).item())) for _ in range(count)]


def test_without_filters_every_token_keeps_its_probability() -> None:
    assert allowed() == {3: 0.5, 0: 0.25, 4: 0.15, 1: 0.07, 2: 0.03}


def test_top_k_keeps_the_most_likely() -> None:
    assert allowed(top_k=2) == {3: 0.6667, 0: 0.3333}


@pytest.mark.parametrize(("top_p", "kept"), [(0.4, [3]), (0.51, [3, 0]), (0.74, [3, 0]), (0.76, [3, 0, 4])])
def test_top_p_keeps_tokens_until_the_probability_is_reached(top_p: float, kept: list[int]) -> None:
    assert list(allowed(top_p=top_p)) == kept


def test_top_p_keeps_one_token_however_small_it_is() -> None:
    assert list(allowed(top_p=1e-6)) == [3]


def test_min_p_is_relative_to_the_most_likely_token() -> None:
    assert list(allowed(min_p=0.29)) == [3, 0, 4]
    assert list(allowed(min_p=0.31)) == [3, 0]


def test_temperature_comes_before_top_p() -> None:
    # At temperature 0.5 the probabilities are squared: 0.735, 0.184, 0.066, ...
    assert list(allowed(temperature=0.5, top_p=0.7)) == [3]


def test_greedy_takes_the_most_likely_token_whatever_the_seed() -> None:
    assert drawn(Sampling(temperature=0, seed=1), 3) == [3, 3, 3]


def test_a_seed_makes_an_answer_repeatable_and_another_seed_another_answer() -> None:
    first, again, other = (drawn(Sampling(seed=seed), 20) for seed in (7, 7, 8))
    assert first == again
    assert first != other


def test_seed_zero_is_a_seed() -> None:
    assert drawn(Sampling(seed=0), 20) == drawn(Sampling(seed=0), 20)


def test_drawn_frequencies_follow_the_probabilities() -> None:
    counts = np.bincount(drawn(Sampling(seed=3, top_k=0, top_p=1.0), 2000), minlength=5) / 2000
    # Four standard deviations of a share of 2000 draws are at most 0.045.
    assert np.abs(counts - [0.25, 0.07, 0.03, 0.5, 0.15]).max() < 0.045


def test_suppressed_tokens_never_come_out() -> None:
    assert drawn(Sampling(temperature=0, suppress_tokens=(3, 0)), 2) == [4, 4]


def test_suppression_leaves_the_callers_logits_alone() -> None:
    logits = mx.array([0.0, 1.0, 2.0])
    Sampler(Sampling(temperature=0, suppress_tokens=(2,)), vocab_size=3)(logits)
    assert logits.tolist() == [0.0, 1.0, 2.0]


def test_repetition_penalty_counts_the_prompt_and_what_was_drawn() -> None:
    sampler = Sampler(Sampling(temperature=0, repetition_penalty=100.0), vocab_size=3, ids=[2])
    logits = mx.array([2.0, 1.0, 3.0])
    assert [sampler(logits).item() for _ in range(3)] == [0, 1, 2]


def test_repetition_penalty_makes_a_negative_logit_less_likely() -> None:
    sampler = Sampler(Sampling(temperature=0, repetition_penalty=2.0), vocab_size=2, ids=[0])
    assert sampler(mx.array([-1.0, -1.5])).item() == 1


def test_best_logprobs_are_the_models_own_and_sorted() -> None:
    ids, values = cast("list[list[float]]", best_logprobs(LOGITS, 3).tolist())
    assert ids == [3, 0, 4]
    assert np.allclose(values, np.log([0.5, 0.25, 0.15]), atol=1e-6)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("temperature", -0.1),
        ("temperature", math.inf),
        ("temperature", 1e-40),
        ("top_k", -1),
        ("top_p", 0),
        ("top_p", 1.1),
        ("min_p", 2),
        ("repetition_penalty", 0),
    ],
)
def test_a_value_out_of_range_is_a_usage_error_that_names_it(name: str, value: float) -> None:
    with pytest.raises(UsageError, match=name):
        Sampling(**{name: value})  # type: ignore[arg-type]
