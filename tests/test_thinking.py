"""A budget of thoughts through Gemma, on the miniature: exact whoever draws, and wherever it is reached."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any, get_args

import mlx.core as mx
import pytest

from gemma_mlx import Gemma, Reply, Sampling
from gemma_mlx.decoding.depth import DepthController, FixedDepth
from gemma_mlx.decoding.generate import generate
from gemma_mlx.decoding.sampling import Sampler
from gemma_mlx.decoding.speculate import DraftMode
from gemma_mlx.errors import UsageError
from gemma_mlx.tasks.conversation import Conversation
from tests.decoding.drafters import NoisyCopy

SUM = [{"role": "user", "content": "What is 2 + 3?"}]
"""The miniature thinks 19 tokens about it: thought, a line end, 16 tokens, a line end."""
GREEDY = Sampling(temperature=0)
LIST = {"type": "array", "items": {"enum": ["red", "blue"]}, "minItems": 1}


def answer(gemma: Gemma, thinking: bool | int, **options: Any) -> Reply:
    options = {"sampling": gemma.sampling(temperature=0), "max_tokens": 80, "draft": "off", **options}
    return gemma.reply(SUM, thinking=thinking, **options)


def after(gemma: Gemma, ids: list[int], count: int, sampling: Sampling = GREEDY, drawn: int = 0) -> list[int]:
    """The tokens after `ids` in a cold run in which no thought can be opened; the last `drawn` count as draws."""
    opens = gemma.prompts.tokenizer.special.channel_open
    hidden, _ = (session := gemma.session()).prefill(ids)
    suppressed = replace(sampling, suppress_tokens=(*sampling.suppress_tokens, opens))
    sampler = Sampler(suppressed, gemma.config.text.vocab_size, ids, drawn)
    return [token.id for token in generate(gemma.model, session.caches, hidden, sampler, gemma.stop_ids, count)]


@pytest.mark.parametrize("budget", [1, 2, 3, 5, 11, 18])
def test_behind_the_budget_comes_what_follows_a_prompt_that_ends_there(
    miniature: Gemma, monkeypatch: pytest.MonkeyPatch, budget: int
) -> None:
    tokenizer = miniature.prompts.tokenizer
    special = tokenizer.special
    free = answer(miniature, True)
    assert free.thought_tokens == 19
    reply = answer(miniature, budget)
    closing = [special.channel_close] if budget == 2 else tokenizer.encode("\n<channel|>")  # 2: behind "thought\n"
    begun = [*free.tokens[: budget + 1], *closing]
    assert list(reply.tokens[: len(begun)]) == begun
    prompt = list(miniature.prompts.build(SUM, thinking=True).ids)
    assert list(reply.tokens[len(begun) :]) == after(miniature, [*prompt, *begun], 80 - len(begun))
    assert (reply.thought_tokens, reply.finish_reason) == (budget, "stop")
    assert reply.target_passes == reply.generated_tokens - 1 - len(closing)
    assert reply.text == tokenizer.decode(reply.tokens[len(begun) :])
    monkeypatch.setattr(miniature, "depth_rule", FixedDepth(0))
    assert answer(miniature, budget, draft="lookup").target_passes == reply.target_passes
    monkeypatch.setattr(miniature, "depth_rule", FixedDepth(4))
    copy = NoisyCopy(reply.tokens, reply.prompt_tokens, miniature.config.text.vocab_size, 0.8)
    for mode in get_args(DraftMode):
        monkeypatch.setattr(miniature, "drafter", copy)
        drafted = answer(miniature, budget, draft=mode)
        assert (drafted.tokens, drafted.text, drafted.thought) == (reply.tokens, reply.text, reply.thought)
        assert drafted.thought_tokens == budget
        if mode == "mtp":
            assert drafted.accepted_tokens > 0
            assert drafted.target_passes < reply.target_passes


@pytest.mark.parametrize("options", [{}, {"temperature": 1.3, "seed": 5}])
@pytest.mark.parametrize("mode", ["off", "auto"])
def test_a_budget_that_is_not_reached_changes_nothing(miniature: Gemma, options: Any, mode: DraftMode) -> None:
    sampling = miniature.sampling(**(options or {"temperature": 0}))
    free = answer(miniature, True, sampling=sampling, draft=mode)
    assert free.thought_tokens < 70
    within = answer(miniature, 70, sampling=sampling, draft=mode)
    assert (within.tokens, within.thought_tokens) == (free.tokens, free.thought_tokens)


def test_a_seeded_answer_with_a_budget_does_not_depend_on_drafting(
    miniature: Gemma, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(miniature, "depth_rule", FixedDepth(3))
    sampling = miniature.sampling(temperature=1.4, seed=3, repetition_penalty=1.2)
    first, *others = [answer(miniature, 7, sampling=sampling, draft=mode).tokens for mode in get_args(DraftMode)]
    assert len(first) > 12
    assert others == [first] * len(others)
    prompt = list(miniature.prompts.build(SUM, thinking=True).ids)
    assert list(first[10:]) == after(miniature, [*prompt, *first[:10]], 70, sampling, drawn=10)


def test_a_budget_of_0_is_the_empty_thought_of_the_template(miniature: Gemma) -> None:
    assert answer(miniature, 0).tokens == answer(miniature, False).tokens
    with pytest.raises(UsageError, match="budget of thoughts is -3"):
        answer(miniature, -3)


@pytest.mark.parametrize("mode", ["off", "auto"])
def test_fewer_tokens_than_the_budget_or_its_end_take_are_the_first_of_the_answer(
    miniature: Gemma, mode: DraftMode
) -> None:
    """The budget is reached with the 6th token; the 7th and 8th are written."""
    whole = answer(miniature, 5).tokens
    for count in (1, 4, 5, 6, 7, 8, 9, 10):
        reply = answer(miniature, 5, max_tokens=count, draft=mode)
        assert (reply.tokens, reply.finish_reason) == (whole[:count], "length")
        assert reply.thought_tokens == min(count - 1, 5)


def test_each_token_has_the_models_own_log_probabilities(miniature: Gemma) -> None:
    reply = answer(miniature, 5, logprobs=2)
    prompt = miniature.prompts.build(SUM, thinking=True)
    rows = mx.concatenate(list(miniature.answer_logits(prompt, reply.tokens)))
    own = rows - mx.logsumexp(rows, axis=-1, keepdims=True)
    assert len(reply.logprobs) == len(reply.tokens) == len(own)
    for row, best in zip(own, reply.logprobs, strict=True):
        assert [row[index].item() for index, _ in best] == pytest.approx([value for _, value in best], abs=1e-3)
        assert best[0][0] == mx.argmax(row).item()


@pytest.mark.parametrize("budget", [1, 4, 9])
def test_under_a_grammar_the_answer_is_whole_however_few_tokens_are_left(miniature: Gemma, budget: int) -> None:
    grammar = miniature.json_grammar(LIST)
    least = len(grammar.shortest or []) + 3
    for max_tokens in range(least, least + 14):
        reply = answer(miniature, budget, grammar=grammar, max_tokens=max_tokens, logprobs=1)
        assert set(json.loads(reply.text)) <= {"red", "blue"}
        assert reply.thought_tokens <= budget
        assert len(reply.logprobs) == len(reply.tokens) <= max_tokens
        assert reply.finish_reason in ("stop", "closed")
    assert reply.thought_tokens == budget


@pytest.mark.parametrize("mode", ["off", "lookup"])
def test_all_thoughts_of_an_answer_share_the_budget_and_then_none_is_opened(
    miniature: Gemma, monkeypatch: pytest.MonkeyPatch, mode: DraftMode
) -> None:
    """With other tokens as those around a thought: `2` and `+` stand in the answer twice, one token apart."""
    tokenizer, unchanged = miniature.prompts.tokenizer, answer(miniature, True).tokens
    two, plus = unchanged[10], unchanged[12]
    assert (tokenizer.decode([two]), tokenizer.decode([plus])) == ("2", "+")
    monkeypatch.setattr(tokenizer, "special", replace(tokenizer.special, channel_open=two, channel_close=plus))
    monkeypatch.setattr(miniature, "depth_rule", FixedDepth(4))
    assert answer(miniature, True, draft=mode).thought_tokens == 2
    assert answer(miniature, 3, draft=mode).tokens == unchanged
    for budget, place in ((1, 12), (2, 23)):
        reply = answer(miniature, budget, draft=mode)
        assert reply.tokens[:place] == unchanged[:place]
        assert reply.tokens[place : place + 2] == (*tokenizer.encode("\n"), plus)
        assert two not in reply.tokens[place + 2 :]
        assert reply.thought_tokens == budget


@pytest.mark.parametrize("taken", [6, 7, 8, 9, None])
@pytest.mark.parametrize("mode", ["off", "lookup"])
def test_the_turn_after_an_answer_with_a_budget_is_that_of_a_cold_run(
    miniature: Gemma, mode: DraftMode, taken: int | None
) -> None:
    """Also where the answer is stopped among the tokens that were written: they are the 7th and 8th."""
    chat = Conversation(miniature, thinking=5, max_tokens=30, draft=mode)
    coming = chat.ask("What is 2 + 3?")
    steps = iter(coming)
    for count, _ in enumerate(steps, start=1):
        if count == taken:
            break
    steps.close()  # type: ignore[attr-defined]
    reply = coming.reply
    assert reply.finish_reason == ("interrupted" if taken else "length")
    assert chat.used_tokens == 0
    chat.keep(replace(reply, text=reply.text or "5"))
    assert chat.used_tokens == reply.prompt_tokens + reply.generated_tokens
    again = chat.ask("And 3 + 4?")
    for _ in again:
        pass
    question = [*chat.messages, {"role": "user", "content": "And 3 + 4?"}]
    assert again.reply.tokens == miniature.reply(question, thinking=5, max_tokens=30, draft="off").tokens
    assert again.reply.reused_tokens > 10


def test_the_gain_of_drafts_is_the_speed_beside_that_of_a_measured_undrafted_round(
    miniature: Gemma, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert answer(miniature, True, draft="off").draft_gain is None
    rule = DepthController()
    monkeypatch.setattr(miniature, "depth_rule", rule)
    few = answer(miniature, True, draft="lookup", max_tokens=2)
    assert (few.draft_gain, rule.undrafted_s) == (None, None)  # nothing was measured yet
    reply = answer(miniature, True, draft="lookup")
    assert rule.undrafted_s
    assert reply.draft_gain == pytest.approx(reply.generation_tps * rule.undrafted_s)
    monkeypatch.setattr(miniature, "depth_rule", FixedDepth(2))
    assert answer(miniature, True, draft="lookup").draft_gain is None
