"""What is written for the model in the middle of an answer: caches, drafts and draws go on as after a prompt."""

from __future__ import annotations

from itertools import islice

import mlx.core as mx
import pytest

from gemma_mlx.decoding.depth import FixedDepth
from gemma_mlx.decoding.generate import generate
from gemma_mlx.decoding.sampling import Sampler, Sampling
from gemma_mlx.decoding.speculate import Drafting, speculate
from gemma_mlx.decoding.thinking import Thoughts, thinking_budget, write_for_model
from gemma_mlx.errors import UsageError
from gemma_mlx.model.gemma4 import Gemma4
from tests.decoding.drafters import NoisyCopy

VOCAB = 128
PROMPT = [2, 5, 9, 17, 31, 8, 40, 41, 12, 6]  # longer than the window of 8
WRITTEN = [77, 78]
GREEDY = Sampling(temperature=0)


def cold(model: Gemma4, ids: list[int], count: int) -> list[int]:
    """The greedy tokens after `ids`, from caches that saw nothing else."""
    caches = model.make_caches()
    hidden = model(model.embed_tokens(mx.array([ids])), caches)[:, -1:]
    return [token.id for token in generate(model, caches, hidden, Sampler(GREEDY, VOCAB), frozenset(), count)]


@pytest.mark.parametrize("depth", [0, 4])
@pytest.mark.parametrize("taken", [1, 2, 3, 4, 5, 6, 7, 8, 30])
def test_drawing_goes_on_as_after_a_prompt_wherever_it_was_left(lively_model: Gemma4, taken: int, depth: int) -> None:
    caches = lively_model.make_caches()
    hidden = lively_model(lively_model.embed_tokens(mx.array([PROMPT])), caches)[:, -1:]
    expected = cold(lively_model, PROMPT, 40)
    drafting = Drafting(FixedDepth(depth), NoisyCopy(expected, len(PROMPT), VOCAB, 0.8))
    first = (lively_model, caches, hidden, Sampler(GREEDY, VOCAB), frozenset[int](), 40)
    drawing = speculate(*first, drafting=drafting) if depth else generate(*first)
    tokens = [token.id for token in islice(drawing, taken)]
    assert tokens == expected[:taken]
    written, hidden = write_for_model(lively_model, caches, len(PROMPT) + taken - 1, tokens[-1], WRITTEN, 3)
    ids = [*PROMPT, *tokens, *WRITTEN]
    assert {cache.offset for cache in caches} == {len(ids)}
    assert [token.id for token in written] == WRITTEN
    rows = lively_model(lively_model.embed_tokens(mx.array([ids])), lively_model.make_caches())
    for place, token in enumerate(written, start=len(ids) - len(WRITTEN)):
        likeliest = int(mx.argmax(lively_model.logits(rows[0, place - 1])).item())  # type: ignore[arg-type]
        assert token.logprobs[0][0] == likeliest
        assert len(token.logprobs) == 3
    following = cold(lively_model, ids, 25)
    drafting = Drafting(FixedDepth(depth), NoisyCopy(following, len(ids), VOCAB, 0.8))
    then = (lively_model, caches, hidden, Sampler(GREEDY, VOCAB), frozenset[int](), 25)
    drawing = speculate(*then, drafting=drafting) if depth else generate(*then)
    assert [token.id for token in drawing] == following


def test_writing_behind_a_token_whose_past_is_not_cached_is_refused(lively_model: Gemma4) -> None:
    caches = lively_model.make_caches()
    lively_model(lively_model.embed_tokens(mx.array([PROMPT])), caches)
    with pytest.raises(ValueError, match="not cached"):
        write_for_model(lively_model, caches, len(PROMPT) + 1, 3, WRITTEN)


def test_thoughts_are_counted_between_the_channel_tokens_all_together() -> None:
    thoughts = Thoughts(1, 2, budget=3)
    thoughts.skip([5, 1, 5, 5, 2, 5])
    states = []
    for index in [7, 1, 7, 7, 2, 7, 7, 1, 7]:
        thoughts.take(index)
        states.append((thoughts.tokens, thoughts.spent))
    assert [count for count, _ in states] == [0, 0, 1, 2, 2, 2, 2, 2, 3]
    assert [spent for _, spent in states] == [False] * 8 + [True]


def test_a_prompt_may_end_inside_a_thought() -> None:
    thoughts = Thoughts(1, 2, budget=1)
    thoughts.skip([5, 1, 5])
    assert not thoughts.spent
    thoughts.take(7)
    assert (thoughts.tokens, thoughts.spent) == (1, True)


def test_without_a_budget_thoughts_are_counted_and_never_spent() -> None:
    thoughts = Thoughts(1, 2)
    for index in [1, *[7] * 1000]:
        thoughts.take(index)
    assert (thoughts.tokens, thoughts.spent) == (1000, False)


def test_a_budget_is_a_number_and_true_has_none() -> None:
    assert [thinking_budget(thinking) for thinking in (True, False, 0, 1, 9)] == [None, None, 0, 1, 9]
    with pytest.raises(UsageError, match="0 or more"):
        thinking_budget(-1)
