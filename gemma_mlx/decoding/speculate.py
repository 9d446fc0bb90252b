"""Several tokens per pass of the target: draft some, check all of them in one pass, keep those that hold.

    caches hold              ... a b            c is known, but no pass has seen it
    draft                            d e f      guessed from c on
    one pass over                  c d e f      says what comes after each of the four
    what comes out                   d e x      e was followed by x and not by f: two drafted tokens held, x is new
    rewind by one            ... a b c d e      x is known, but no pass has seen it

The text is the target's own: greedily and with a seed, token for token what `generate` gives; without a seed, with the
same probability (`acceptance.py`). A pass over several rows may round differently from a pass over one, as MLX takes
other kernels for it: where two tokens are equally likely but for rounding, the other one may come out. In float32 that
takes a tie to six digits; in bfloat16, and on Metal, such ties come up now and then in a long text.

The host waits once per round, for the tokens. Rounds that draft nothing follow each other as in `generate`: the next
one is on its way before the host waits.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence, Set
from dataclasses import dataclass, field, replace
from typing import Literal, Protocol, cast

import mlx.core as mx

from gemma_mlx.decoding.acceptance import matching, speculative_sampling
from gemma_mlx.decoding.costs import MAX_DEPTH, Costs, Drafter, measure_costs
from gemma_mlx.decoding.depth import Offer, Plan
from gemma_mlx.decoding.generate import Token, pairs
from gemma_mlx.decoding.lookup import PromptLookup
from gemma_mlx.decoding.sampling import Sampler, best_logprobs
from gemma_mlx.model.decoder import Cache
from gemma_mlx.model.gemma4 import Gemma4

DraftMode = Literal["auto", "mtp", "lookup", "off"]
"""Who may draft: a drafter and looking up, one of them, or nobody. How much, the depth rule says, also for "mtp"."""


class DepthRule(Protocol):
    """Chooses what to draft; see `DepthController`."""

    @property
    def undrafted_s(self) -> float | None: ...
    def needs_costs(self, *, drafter: bool) -> bool: ...
    def start(self, costs: Costs) -> None: ...
    def choose(self, offers: Sequence[Offer]) -> Plan: ...
    def record(self, plan: Plan, accepted: int, seconds: float, *, steady: bool) -> None: ...


@dataclass
class Tally:
    """What drafting did in an answer. Tokens drafted beyond its end count as drafted, not as accepted."""

    passes: int = 0
    """Of the target, after the prompt's."""
    drafted_tokens: int = 0
    accepted_tokens: int = 0


@dataclass(frozen=True)
class Drafting:
    """Where drafts come from and who says how long they get. `lookup` knows the prompt."""

    rule: DepthRule
    drafter: Drafter | None = None
    lookup: PromptLookup | None = None
    tally: Tally = field(default_factory=Tally)


@dataclass(frozen=True)
class _Draft:
    """`ids` [n] and, where they were drawn from a distribution, what each was drawn by, [n, V]."""

    plan: Plan
    ids: mx.array
    scores: mx.array | None = None


@dataclass(frozen=True)
class _Round:
    """A pass on its way."""

    plan: Plan
    outcome: mx.array
    """The token [1]; after a draft [n + 2]: how many of it hold, then the tokens, of which one more come out."""
    hidden: mx.array
    """[1, n + 1, D]"""
    best: mx.array
    """The best log-probabilities for each place, [n + 1, 2, N]."""
    ahead: bool
    """It was on its way before the round before it had landed."""
    of_prompt: bool = False
    """No pass: the prompt's last hidden state leads to the first token."""


def speculate(
    model: Gemma4,
    caches: list[Cache],
    hidden: mx.array,
    sampler: Sampler,
    stop_ids: Set[int],
    max_tokens: int,
    logprobs: int = 0,
    *,
    drafting: Drafting,
) -> Iterator[Token]:
    """As `generate`, with drafts: the same tokens one by one, the same end, and caches that `settle` sets right.

    Whenever this is left, the caches hold the prompt, a prefix of the tokens yielded, and at most the rows of the last
    pass beyond them.
    """
    rounds = _Rounds(model, caches, sampler, logprobs, drafting)
    left = max_tokens
    current = rounds.first(hidden)
    while True:
        following = rounds.launch_ahead(current, left - 1)
        tokens, held = rounds.land(current, following)
        tokens = _up_to_stop(tokens, stop_ids)
        left -= len(tokens)
        ended = left == 0 or tokens[-1].id in stop_ids
        if current.of_prompt and not ended and following is None:
            yield tokens[0]  # before anything is drafted: nobody waits with the first token for the next ones
            first = rounds.draft_after(tokens[0].id, current, held, left)
            current = rounds.launch(_array([tokens[0].id]), first, ahead=False)
            continue
        draft = None if ended or following else rounds.draft_after(tokens[-1].id, current, held, left)
        for index, token in enumerate(tokens):
            # Only now: where the consumer stops at an earlier token, the last pass alone has to be rewound.
            if draft is not None and index == len(tokens) - 1:
                following = rounds.launch(_array([token.id]), draft, ahead=False)
            drafting.tally.accepted_tokens += index < held
            yield token
        if ended:
            return
        assert following is not None
        current = following


class _Rounds:
    """The rounds of one answer."""

    def __init__(self, model: Gemma4, caches: list[Cache], sampler: Sampler, logprobs: int, drafting: Drafting) -> None:
        self._model = model
        self._caches = caches
        self._sampler = sampler
        self._logprobs = logprobs
        self._drafting = drafting
        self._landed_s: float | None = None

    def first(self, hidden: mx.array) -> _Round:
        """The choice that the prompt's last hidden state [1, 1, D] leads to; no pass is needed for it."""
        return replace(self._choose(hidden, _Draft(Plan(), _array([])), ahead=False), of_prompt=True)

    def launch_ahead(self, current: _Round, left: int) -> _Round | None:
        """The round after `current`, if neither drafts; `left` tokens may come after that of `current`."""
        if current.plan.depth or left < 1:
            return None
        offers, _ = self._offers(left)
        needs_costs = self._drafting.rule.needs_costs(drafter=self._drafting.drafter is not None)
        if needs_costs and offers and left > MAX_DEPTH and not current.of_prompt:
            # Here, only the rows that measuring appends will be rewound, and they are no more than may come anyway.
            mx.eval(current.outcome, current.hidden)  # a pass still on its way would be measured with the first one
            self._drafting.rule.start(measure_costs(self._model, self._caches, self._drafting.drafter))
            self._landed_s = None
        plan = self._drafting.rule.choose(offers)
        return None if plan.depth else self.launch(current.outcome, _Draft(plan, _array([])), ahead=True)

    def draft_after(self, token: int, current: _Round, held: int, left: int) -> _Draft:
        """A draft after `token`, the last of `current` and known by now; `left` tokens may come."""
        offers, proposed = self._offers(left)
        plan = self._drafting.rule.choose(offers)
        draft = self._draft(_array([token]), current.hidden[:, held : held + 1], plan, proposed)
        mx.async_eval(draft.ids)
        return draft

    def launch(self, token: mx.array, draft: _Draft, *, ahead: bool) -> _Round:
        """The target's pass over `token` [1] and the draft after it; nobody waits for it yet."""
        ids = mx.concatenate([token, draft.ids]) if draft.plan.depth else token  # [n + 1]
        hidden = self._model(self._model.embed_tokens(ids[None]), self._caches)
        return self._choose(hidden, draft, ahead=ahead)

    def land(self, landing: _Round, following: _Round | None) -> tuple[list[Token], int]:
        """Waits for a round; returns its tokens and how many drafted ones held. Rows that did not are rewound.

        `following` is the next round, if it is on its way.
        """
        depth = landing.plan.depth
        outcome = cast("list[int]", landing.outcome.tolist())
        held, *ids = outcome if depth else [0, *outcome]
        ids = ids[: held + 1]
        if depth:
            self._sampler.took(_array(ids))
            for cache in self._caches:
                cache.rewind(depth - held)
        if self._drafting.lookup is not None:
            self._drafting.lookup.extend(ids)
        self._record(landing, held, steady=landing.ahead and following is not None)
        best = [pairs(landing.best[index]) if self._logprobs else () for index in range(len(ids))]
        return [Token(index, found) for index, found in zip(ids, best, strict=True)], held

    def _record(self, landed: _Round, held: int, *, steady: bool) -> None:
        now_s = time.perf_counter()
        if landed.of_prompt:
            self._landed_s = now_s
            return
        if self._landed_s is not None:
            self._drafting.rule.record(landed.plan, held, now_s - self._landed_s, steady=steady)
        self._landed_s = now_s
        self._drafting.tally.passes += 1
        self._drafting.tally.drafted_tokens += landed.plan.depth

    def _offers(self, left: int) -> tuple[list[Offer], tuple[int, ...]]:
        """What could be drafted where `left` tokens may come, and what looking up proposes."""
        limit = min(left - 1, MAX_DEPTH)  # the pass brings one token more
        if limit < 1:
            return [], ()
        proposal = self._drafting.lookup.propose(limit) if self._drafting.lookup else None
        offers = [Offer("lookup", len(proposal.ids), proposal.match_tokens)] if proposal else []
        if self._drafting.drafter is not None:
            offers.append(Offer("mtp", limit))
        return offers, proposal.ids if proposal else ()

    def _draft(self, token: mx.array, hidden: mx.array, plan: Plan, proposed: tuple[int, ...]) -> _Draft:
        """As `plan` says, after `token` [1] and from the hidden state [1, 1, D] before it."""
        if plan.offer is None or plan.offer.source == "lookup":
            return _Draft(plan, _array(proposed[: plan.depth]))
        drafter, sampler = self._drafting.drafter, self._sampler
        assert drafter is not None
        ids, scores = _array([]), []
        for index in range(plan.depth):
            logits, hidden = drafter.step(token[None], hidden, self._caches)
            seen = sampler.seen_after(ids)
            scores.append(sampler.scores(logits, None if seen is None else seen[-1:]))  # [1, V]
            token = sampler.draw(scores[-1], ahead=index)
            ids = mx.concatenate([ids, token])
        return _Draft(plan, ids, mx.concatenate(scores))

    def _choose(self, hidden: mx.array, draft: _Draft, *, ahead: bool) -> _Round:
        """The target's word on each row of `hidden` [1, n + 1, D]."""
        sampler = self._sampler
        logits = self._model.logits(hidden[0])  # [n + 1, V]
        scores = sampler.scores(logits, sampler.seen_after(draft.ids))
        if not draft.plan.depth:
            outcome = sampler.draw(scores)
            sampler.took(outcome)
        else:
            if draft.scores is None or sampler.repeatable:
                tokens, held = matching(draft.ids, sampler.draw(scores))
            else:
                p, q = mx.exp(scores), mx.exp(draft.scores)
                tokens, held = speculative_sampling(draft.ids, p, q, sampler.spare_keys())
            outcome = mx.concatenate([held[None].astype(mx.uint32), tokens])
        best = best_logprobs(logits, self._logprobs) if self._logprobs else mx.array(0)
        mx.async_eval(outcome, best)
        return _Round(draft.plan, outcome, hidden, best, ahead)


def _array(ids: Sequence[int]) -> mx.array:
    return mx.array(tuple(ids), dtype=mx.uint32)


def _up_to_stop(tokens: list[Token], stop_ids: Set[int]) -> list[Token]:
    """`tokens` up to and with the first that ends an answer."""
    stop = next((index for index, token in enumerate(tokens) if token.id in stop_ids), len(tokens))
    return tokens[: stop + 1]
