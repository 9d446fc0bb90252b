from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from gemma_mlx import Gemma
from gemma_mlx.decoding.constrained import Constraint
from gemma_mlx.errors import UsageError
from tests.decoding.schemas import answer_kind

LIST = {"type": "array", "items": {"enum": ["red", "blue"]}, "minItems": 1}
HELLO = [{"role": "user", "content": "Hello"}]


@pytest.mark.parametrize("first", [20, 40])
def test_answers_to_random_schemas_parse_and_validate(miniature: Gemma, first: int) -> None:
    came = [answer_kind(miniature, seed) for seed in range(first, first + 20)]
    assert {"stop", "closed", "too short"} >= set(came)
    assert came.count("too short") < 10


def test_every_length_that_holds_an_answer_gives_a_whole_one(miniature: Gemma) -> None:
    grammar = miniature.json_grammar(LIST)
    least = len(grammar.shortest or []) + 1
    sampling = replace(miniature.sampling(), temperature=1.0, seed=3)
    ended = set()
    for max_tokens in range(least, least + 12):
        reply = miniature.reply(HELLO, grammar=grammar, max_tokens=max_tokens, sampling=sampling)
        assert set(json.loads(reply.text)) <= {"red", "blue"}
        assert len(reply.tokens) <= max_tokens
        ended.add(reply.finish_reason)
    assert "closed" in ended
    with pytest.raises(UsageError, match=f"takes {least} tokens, and {least - 1} may come"):
        miniature.reply(HELLO, grammar=grammar, max_tokens=least - 1)


def test_an_answer_that_could_go_on_is_ended_with_its_last_token(miniature: Gemma) -> None:
    """A number may end at every digit, so the way to the end is empty, and still takes the token that ends it."""
    grammar = miniature.json_grammar({"type": ["null", "integer"]})
    for max_tokens in (2, 3, 5):
        reply = miniature.reply(
            HELLO, grammar=grammar, max_tokens=max_tokens, sampling=miniature.sampling(temperature=0)
        )
        assert reply.finish_reason in ("stop", "closed")
        assert reply.tokens[-1] in grammar.stop_ids
        assert len(reply.tokens) <= max_tokens


def test_a_thought_comes_first_and_leaves_room_for_the_answer(miniature: Gemma) -> None:
    grammar = miniature.json_grammar(LIST)
    sampling = miniature.sampling(temperature=0.0)
    options: dict[str, Any] = {"grammar": grammar, "thinking": True, "sampling": sampling}
    free = miniature.reply(HELLO, max_tokens=100, **options)
    assert free.thought
    json.loads(free.text)
    least = len(grammar.shortest or []) + 3
    short = miniature.reply(HELLO, max_tokens=least, **options)
    assert len(short.tokens) <= least
    json.loads(short.text)
    with pytest.raises(UsageError):
        miniature.reply(HELLO, max_tokens=least - 1, **options)


def test_within_a_thought_anything_but_the_end_of_the_turn_may_come(miniature: Gemma) -> None:
    grammar = miniature.json_grammar(LIST)
    opens, closes = miniature.prompts.tokenizer.special.channel_open, miniature.prompts.tokenizer.special.channel_close
    constraint = Constraint(grammar, 100, (opens, closes))
    assert constraint.admitted()[opens]
    assert constraint.take(opens, 100) == opens
    inside = constraint.admitted()
    assert np.flatnonzero(~inside).tolist() == sorted({*grammar.stop_ids, opens})
    assert constraint.take(closes, 99) == closes
    assert constraint.admitted().sum() < 10
    assert not constraint.admitted()[opens]


def test_the_masked_answer_is_drawn_like_any_other(miniature: Gemma) -> None:
    grammar = miniature.json_grammar({"enum": ["a", "b", "c", "d"]})
    sampling = replace(miniature.sampling(), temperature=5.0, top_k=0, top_p=1.0)
    replies = [
        miniature.reply(HELLO, grammar=grammar, max_tokens=20, sampling=replace(sampling, seed=seed)).text
        for seed in [*range(12), 0]
    ]
    assert len(set(replies)) > 1
    assert replies[0] == replies[-1]


def test_log_probabilities_are_the_models_own(miniature: Gemma) -> None:
    reply = miniature.reply(HELLO, grammar=miniature.json_grammar(LIST), max_tokens=20, logprobs=3)
    free = miniature.reply(HELLO, max_tokens=1, logprobs=3)
    assert reply.logprobs[0] == free.logprobs[0]
    assert len(reply.logprobs) == len(reply.tokens)


def test_the_session_goes_on_after_an_answer_under_a_grammar(miniature: Gemma) -> None:
    session = miniature.session()
    reply = miniature.reply(HELLO, grammar=miniature.json_grammar(LIST), max_tokens=20, session=session)
    turns = [*HELLO, {"role": "assistant", "content": reply.text}, {"role": "user", "content": "What is 2 + 3?"}]
    warm = miniature.reply(turns, session=session, sampling=miniature.sampling(temperature=0.0))
    cold = miniature.reply(turns, sampling=miniature.sampling(temperature=0.0))
    assert warm.reused_tokens > 0
    assert warm.tokens == cold.tokens
