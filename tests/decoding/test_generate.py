from __future__ import annotations

from collections.abc import Iterator
from typing import cast

import mlx.core as mx
import pytest

from gemma_mlx.decoding.generate import Token, generate, settle
from gemma_mlx.decoding.sampling import Sampler, Sampling
from gemma_mlx.model.decoder import Cache
from gemma_mlx.model.gemma4 import Gemma4

PROMPT = [2, 5, 9, 17]
GREEDY = Sampling(temperature=0)


def start(
    model: Gemma4, max_tokens: int, stop_ids: frozenset[int] = frozenset()
) -> tuple[list[Cache], Iterator[Token]]:
    caches = model.make_caches()
    hidden = model(model.embed_tokens(mx.array([PROMPT])), caches)
    sampler = Sampler(GREEDY, vocab_size=10_000)
    return caches, generate(model, caches, hidden[:, -1:], sampler, stop_ids, max_tokens)


def one_by_one(model: Gemma4, count: int) -> list[int]:
    """Greedy ids by a full pass over everything for each token: nothing cached, nothing ahead."""
    ids = list(PROMPT)
    for _ in range(count):
        hidden = model(model.embed_tokens(mx.array([ids])), model.make_caches())
        ids.append(int(cast("int", mx.argmax(model.logits(hidden[0, -1])).item())))
    return ids[len(PROMPT) :]


def test_looking_ahead_gives_the_tokens_of_full_passes(tiny_model: Gemma4) -> None:
    _, tokens = start(tiny_model, 24)
    assert [token.id for token in tokens] == one_by_one(tiny_model, 24)


def test_a_stop_token_is_yielded_and_ends_the_answer(tiny_model: Gemma4) -> None:
    ids = one_by_one(tiny_model, 12)
    stop = next(index for index in range(2, 12) if ids[index] not in ids[:index])
    _, tokens = start(tiny_model, 12, frozenset([ids[stop]]))
    assert [token.id for token in tokens] == ids[: stop + 1]


@pytest.mark.parametrize("taken", [1, 2, 5])
def test_an_answer_left_early_settles_on_what_was_taken(tiny_model: Gemma4, taken: int) -> None:
    caches, tokens = start(tiny_model, 20)
    for _ in range(taken):
        next(tokens)
    assert settle(caches, len(PROMPT) + taken) == len(PROMPT) + taken
    assert {cache.offset for cache in caches} == {len(PROMPT) + taken}


def test_logprobs_come_with_each_token_and_name_the_greedy_one_first(tiny_model: Gemma4) -> None:
    caches = tiny_model.make_caches()
    hidden = tiny_model(tiny_model.embed_tokens(mx.array([PROMPT])), caches)[:, -1:]
    tokens = list(generate(tiny_model, caches, hidden, Sampler(GREEDY, 10_000), frozenset(), 3, logprobs=2))
    assert [token.logprobs[0][0] for token in tokens] == [token.id for token in tokens]
    assert all(token.logprobs[0][1] >= token.logprobs[1][1] for token in tokens)
