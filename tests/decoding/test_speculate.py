"""Drafting changes nothing about the tokens: a real network, its window full, drafts right and wrong."""

from __future__ import annotations

import itertools
from collections.abc import Generator, Iterator
from typing import ClassVar, cast

import mlx.core as mx
import numpy as np
import pytest

from gemma_mlx.decoding.costs import measure_costs
from gemma_mlx.decoding.depth import DepthController, FixedDepth
from gemma_mlx.decoding.generate import Token, generate, settle
from gemma_mlx.decoding.lookup import PromptLookup
from gemma_mlx.decoding.prefill import SoftTokens
from gemma_mlx.decoding.sampling import Sampler, Sampling
from gemma_mlx.decoding.session import Session
from gemma_mlx.decoding.speculate import Drafting, speculate
from gemma_mlx.model.decoder import Cache
from gemma_mlx.model.gemma4 import Gemma4
from tests.decoding.drafters import NoisyCopy, RandomDrafter
from tests.decoding.test_session import picture

VOCAB = 128
PROMPT = [2, 5, 9, 17, 31, 8, 40, 41, 12, 6]
GREEDY = Sampling(temperature=0)
LONG = 500


def prefilled(model: Gemma4, ids: list[int] = PROMPT) -> tuple[list[Cache], mx.array]:
    caches = model.make_caches()
    return caches, model(model.embed_tokens(mx.array([ids])), caches)[:, -1:]


def plain(model: Gemma4, count: int, sampling: Sampling = GREEDY, logprobs: int = 0) -> list[Token]:
    caches, hidden = prefilled(model)
    sampler = Sampler(sampling, VOCAB, PROMPT)
    return list(generate(model, caches, hidden, sampler, frozenset(), count, logprobs))


def drafted(
    model: Gemma4,
    drafting: Drafting,
    count: int,
    sampling: Sampling = GREEDY,
    logprobs: int = 0,
    stop_ids: frozenset[int] = frozenset(),
) -> tuple[list[Cache], Iterator[Token]]:
    caches, hidden = prefilled(model)
    sampler = Sampler(sampling, VOCAB, PROMPT)
    return caches, speculate(model, caches, hidden, sampler, stop_ids, count, logprobs, drafting=drafting)


@pytest.fixture(scope="module")
def greedy_ids(lively_model: Gemma4) -> list[int]:
    ids = [token.id for token in plain(lively_model, LONG)]
    assert len({tuple(ids[place : place + 8]) for place in range(LONG - 8)}) > 0.9 * LONG  # it does not go in circles
    return ids


@pytest.mark.parametrize("depth", range(1, 9))
def test_greedy_tokens_are_those_without_drafts(lively_model: Gemma4, greedy_ids: list[int], depth: int) -> None:
    rate = (0.6, 0.7, 0.8, 0.8, 0.9, 0.95, 0.85, 0.9)[depth - 1]
    drafting = Drafting(FixedDepth(depth), NoisyCopy(greedy_ids, len(PROMPT), VOCAB, rate))
    _, tokens = drafted(lively_model, drafting, LONG)
    assert [token.id for token in tokens] == greedy_ids
    tally = drafting.tally
    assert tally.passes + tally.accepted_tokens + 1 == LONG
    assert 0 < tally.accepted_tokens < tally.drafted_tokens


def test_a_drafter_that_is_always_wrong_costs_passes_and_changes_no_token(
    lively_model: Gemma4, greedy_ids: list[int]
) -> None:
    drafting = Drafting(FixedDepth(3), NoisyCopy(greedy_ids, len(PROMPT), VOCAB, 0.0))
    _, tokens = drafted(lively_model, drafting, 80)
    assert [token.id for token in tokens] == greedy_ids[:80]
    assert drafting.tally.accepted_tokens == 0
    assert drafting.tally.passes == 79
    assert drafting.tally.drafted_tokens == 76 * 3 + 2 + 1  # no draft is longer than what may still come


def test_a_drafter_that_is_always_right_saves_passes(lively_model: Gemma4, greedy_ids: list[int]) -> None:
    drafting = Drafting(FixedDepth(4), NoisyCopy(greedy_ids, len(PROMPT), VOCAB, 1.0))
    _, tokens = drafted(lively_model, drafting, 101)
    assert [token.id for token in tokens] == greedy_ids[:101]
    assert drafting.tally.passes == 20


def test_looked_up_drafts_change_no_token_and_hold_where_the_text_repeats(
    lively_model: Gemma4, greedy_ids: list[int]
) -> None:
    wrong_in_places = [1 if place % 9 == 8 else token for place, token in enumerate(greedy_ids)]
    known = [*PROMPT, *wrong_in_places]  # as if the prompt had held nearly the answer
    drafting = Drafting(FixedDepth(5), lookup=PromptLookup([*known, *PROMPT], lambda index: True))
    _, tokens = drafted(lively_model, drafting, LONG)
    assert [token.id for token in tokens] == greedy_ids
    assert 120 < drafting.tally.accepted_tokens < drafting.tally.drafted_tokens


def test_the_drafter_gets_the_last_token_and_the_hidden_state_before_it(lively_model: Gemma4) -> None:
    class Recorder(RandomDrafter):
        calls: ClassVar[list[tuple[int, mx.array, mx.array, mx.array]]] = []

        def step(self, ids: mx.array, hidden: mx.array, caches: list[Cache]) -> tuple[mx.array, mx.array]:
            logits, found = super().step(ids, hidden, caches)
            self.calls.append((caches[0].offset, ids, hidden, found))
            return logits, found

    ids = [token.id for token in plain(lively_model, 30)]
    drafting = Drafting(FixedDepth(3), Recorder(lively_model))
    _, tokens = drafted(lively_model, drafting, 30)
    assert [token.id for token in tokens] == ids
    assert 0 < drafting.tally.accepted_tokens < drafting.tally.drafted_tokens
    text = [*PROMPT, *ids]
    hidden = lively_model(lively_model.embed_tokens(mx.array([text])), lively_model.make_caches())
    places = [offset for offset, *_ in Recorder.calls]
    for index, (offset, given, given_hidden, _) in enumerate(Recorder.calls):
        if places.index(offset) == index:  # the first call of a round
            assert given.tolist() == [[text[offset]]]
            assert mx.abs(given_hidden - hidden[:, offset - 1 : offset]).max().item() < 1e-4
        else:
            assert mx.array_equal(given_hidden, Recorder.calls[index - 1][3]).item()


def test_the_controller_changes_no_token(lively_model: Gemma4, greedy_ids: list[int]) -> None:
    lookup = PromptLookup([*PROMPT, *greedy_ids[:60], *PROMPT], lambda index: True)
    drafting = Drafting(DepthController(), NoisyCopy(greedy_ids, len(PROMPT), VOCAB, 0.8), lookup)
    _, tokens = drafted(lively_model, drafting, 200)
    assert [token.id for token in tokens] == greedy_ids[:200]
    assert 0 < drafting.tally.accepted_tokens < drafting.tally.drafted_tokens


@pytest.mark.parametrize(
    "sampling",
    [
        Sampling(seed=5, top_k=20, top_p=0.9),
        Sampling(seed=5, temperature=0.7, top_k=0, min_p=0.05, repetition_penalty=1.3),
        Sampling(temperature=0, repetition_penalty=1.5, suppress_tokens=(7, 9)),
    ],
)
def test_a_seed_draws_the_same_tokens_with_and_without_drafts(lively_model: Gemma4, sampling: Sampling) -> None:
    ids = [token.id for token in plain(lively_model, 40, sampling)]
    copy, other = NoisyCopy(ids, len(PROMPT), VOCAB, 0.7), RandomDrafter(lively_model)
    for drafting in (
        Drafting(FixedDepth(4), copy),
        Drafting(FixedDepth(2), other),
        Drafting(FixedDepth(4), lookup=PromptLookup([*PROMPT, *ids[:30], *PROMPT], lambda index: True)),
    ):
        _, tokens = drafted(lively_model, drafting, 40, sampling)
        assert [token.id for token in tokens] == ids
        assert drafting.tally.accepted_tokens > 0


def test_logprobs_are_those_without_drafts(lively_model: Gemma4, greedy_ids: list[int]) -> None:
    drafting = Drafting(FixedDepth(3), NoisyCopy(greedy_ids, len(PROMPT), VOCAB, 0.6))
    _, tokens = drafted(lively_model, drafting, 40, logprobs=3)
    for found, expected in zip(tokens, plain(lively_model, 40, logprobs=3), strict=True):
        assert [index for index, _ in found.logprobs] == [index for index, _ in expected.logprobs]
        assert np.allclose([v for _, v in found.logprobs], [v for _, v in expected.logprobs], atol=1e-4)


@pytest.mark.parametrize("count", range(1, 9))
def test_max_tokens_inside_a_draft_gives_as_many(lively_model: Gemma4, greedy_ids: list[int], count: int) -> None:
    drafting = Drafting(FixedDepth(4), NoisyCopy(greedy_ids, len(PROMPT), VOCAB, 1.0))
    caches, tokens = drafted(lively_model, drafting, count)
    assert [token.id for token in tokens] == greedy_ids[:count]
    assert drafting.tally.passes + drafting.tally.accepted_tokens + 1 == count
    # No position is computed that `generate` would not: a context that ends here is not overrun.
    assert caches[0].offset == len(PROMPT) + count - 1


@pytest.mark.parametrize("rate", [1.0, 0.0])
def test_a_stop_token_inside_a_draft_ends_the_answer(lively_model: Gemma4, greedy_ids: list[int], rate: float) -> None:
    for stop in [index for index in range(1, 8) if greedy_ids[index] not in greedy_ids[:index]]:
        drafting = Drafting(FixedDepth(5), NoisyCopy(greedy_ids, len(PROMPT), VOCAB, rate))
        caches, tokens = drafted(lively_model, drafting, 40, stop_ids=frozenset([greedy_ids[stop]]))
        assert [token.id for token in tokens] == greedy_ids[: stop + 1]
        assert drafting.tally.accepted_tokens <= stop
        kept = settle(caches, len(PROMPT) + stop + 1)
        assert len(PROMPT) + stop <= kept <= len(PROMPT) + stop + 1


def next_hidden(model: Gemma4, caches: list[Cache], ids: list[int], offset: int) -> mx.array:
    """What the caches, which hold `offset` of `ids`, make of the rest."""
    return model(model.embed_tokens(mx.array([ids[offset:]])), caches)[0, -1]


@pytest.mark.parametrize("start_tokens", [len(PROMPT), 60, 66])
def test_an_answer_left_anywhere_leaves_caches_that_go_on_exactly(lively_model: Gemma4, start_tokens: int) -> None:
    # With 7 + 64 rows in a sliding cache, the longer prompts make it drop rows while the drafts are checked.
    prompt = [3 + (7 * index) % 90 for index in range(start_tokens)]
    caches, hidden = prefilled(lively_model, prompt)
    sampler = Sampler(GREEDY, VOCAB)
    ids = [token.id for token in generate(lively_model, caches, hidden, sampler, frozenset(), 30)]
    probe = [*prompt, *ids][: start_tokens + 22]
    for taken in (1, 2, 3, 4, 5, 9, 13, 16, 19):
        caches, hidden = prefilled(lively_model, prompt)
        drafting = Drafting(FixedDepth(6), NoisyCopy(ids, start_tokens, VOCAB, 0.85))
        tokens = speculate(lively_model, caches, hidden, Sampler(GREEDY, VOCAB), frozenset(), 30, drafting=drafting)
        assert [next(tokens).id for _ in range(taken)] == ids[:taken]
        cast("Generator[Token]", tokens).close()
        kept = settle(caches, start_tokens + taken)
        assert start_tokens + taken - 1 <= kept <= start_tokens + taken
        assert {cache.offset for cache in caches} == {kept}
        cold, _ = prefilled(lively_model, probe[:-1])
        expected = next_hidden(lively_model, cold, probe, len(probe) - 1)
        assert mx.abs(next_hidden(lively_model, caches, probe, kept) - expected).max().item() < 1e-4


@pytest.mark.parametrize("taken", [None, 3, 17])
def test_turns_of_a_session_with_a_picture_are_those_of_cold_answers(lively_model: Gemma4, taken: int | None) -> None:
    session = Session(lively_model, chunk_tokens=16)
    ids: list[int] = []
    media: list[SoftTokens] = []
    for turn in range(3):
        start = len(ids)
        ids += [2, 5 + turn, 9, 17, *[lively_model._config.image_token_id] * 12, 31, 8]
        media.append(picture(lively_model, start + 4, 12, seed=turn))
        expected = cold_answer(lively_model, ids, media, 50)
        hidden, reused = session.prefill(ids, media, stable_tokens=len(ids) - 1)
        assert reused == start or not turn
        drafting = Drafting(FixedDepth(4), NoisyCopy(expected, len(ids), VOCAB, 0.8))
        sampler = Sampler(GREEDY, VOCAB)
        tokens = speculate(lively_model, session.caches, hidden, sampler, frozenset(), len(expected), drafting=drafting)
        answer = [token.id for token in itertools.islice(tokens, taken)]
        assert answer == expected[: len(answer)]
        session.append(answer)
        ids += answer[:-1]  # the last one may not be cached
        assert session.offset >= len(ids)


def cold_answer(model: Gemma4, ids: list[int], media: list[SoftTokens], count: int) -> list[int]:
    hidden, _ = (session := Session(model)).prefill(ids, media)
    sampler = Sampler(GREEDY, VOCAB)
    return [token.id for token in generate(model, session.caches, hidden, sampler, frozenset(), count)]


def test_an_interrupt_while_a_pass_is_built_leaves_a_session_that_answers_rightly(
    lively_model: Gemma4, greedy_ids: list[int]
) -> None:
    class Interrupted(NoisyCopy):
        def step(self, ids: mx.array, hidden: mx.array, caches: list[Cache]) -> tuple[mx.array, mx.array]:
            if caches[0].offset > len(PROMPT) + 20:
                raise KeyboardInterrupt
            return super().step(ids, hidden, caches)

    session = Session(lively_model)
    hidden, _ = session.prefill(PROMPT)
    drafting = Drafting(FixedDepth(4), Interrupted(greedy_ids, len(PROMPT), VOCAB, 0.9))
    tokens = speculate(lively_model, session.caches, hidden, Sampler(GREEDY, VOCAB), frozenset(), 60, drafting=drafting)
    taken: list[int] = []
    with pytest.raises(KeyboardInterrupt):
        taken.extend(token.id for token in tokens)
    session.append(taken)
    hidden, reused = session.prefill([*PROMPT, *taken, 50])
    assert reused >= len(PROMPT) + len(taken) - 1
    _, expected = prefilled(lively_model, [*PROMPT, *taken, 50])
    assert mx.abs(hidden - expected).max().item() < 1e-4


def test_measuring_costs_leaves_the_caches_as_they_were(lively_model: Gemma4, greedy_ids: list[int]) -> None:
    caches, _ = prefilled(lively_model, [*PROMPT, *greedy_ids[:60]])
    costs = measure_costs(lively_model, caches, RandomDrafter(lively_model))
    assert len(costs.verify_s) == 9
    assert costs.draft_s is not None
    assert costs.draft_s > 0
    assert min(costs.verify_s) > 0
    assert {cache.offset for cache in caches} == {70}
    _, expected = prefilled(lively_model, [*PROMPT, *greedy_ids[:61]])
    found = next_hidden(lively_model, caches, [*PROMPT, *greedy_ids[:61]], 70)
    assert mx.abs(found - expected).max().item() < 1e-4


def test_costs_that_were_not_measured_lie_between_their_neighbours(lively_model: Gemma4) -> None:
    caches, _ = prefilled(lively_model)
    first, *between, last = measure_costs(lively_model, caches, budget_s=0.0).verify_s
    assert between == sorted(between, reverse=first > last)
    assert np.allclose(np.diff([first, *between, last]), (last - first) / 8)
