"""How many tokens to draft next: as many as pay on this machine and this text, and none where none do.

A round of drafting n tokens and checking them takes a time that is known for each n, and brings one token and those
drafted ones that are accepted. From how often each place of a draft was accepted lately follows what a round will
bring, and the depth with the most tokens per second is taken. What is not tried is not learnt, so other depths are
tried now and then. Two accounts, in seconds, keep that harmless:

    probing   what trying has cost beside the depth thought best; it may take 1.5 % of the time
    balance   what drafting has gained or lost beside not drafting, with 2 % of the time on top; while it is below zero,
              nothing is drafted

so that whatever acceptance and costs do, drafting loses little more than 2 % against not drafting, as far as the clock
tells what not drafting takes. Where another program holds up every fourth round, it may lose more.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from gemma_mlx.decoding.costs import MAX_DEPTH, Costs, Source

PROBING_SHARE = 0.015
PROBING_CREDIT_TOKENS = 4
ALLOWED_LOSS_SHARE = 0.02
BALANCE_TOKENS = 8
"""The balance begins with the time of so many undrafted tokens, and ..."""
MAX_BALANCE_TOKENS = 32
"""... never holds more than that of so many: past gains do not pay for long losses."""
PLAIN_EVERY_ROUNDS = 200
"""After so many rounds of drafts, undrafted ones are timed again: everything is judged beside them."""
GAP_SHARE = 0.15
"""What an undrafted round beside a draft, or beside a place where one was hoped for, is taken to lose of its time: it
could not be on its way ahead of its turn. The clock does not tell, as such rounds overlap with their neighbours."""

QUICK_SHARE, QUICK_ROUNDS = 0.85, 3
"""Undrafted rounds that take less than this share of what is known are followed by more of them; so many in a row are
believed at once. Only quicker ones: what disturbs a round makes it slow."""
HELD_UP = 1.5
"""A round is charged with at most so many times what its like takes: the rest was somebody else's."""

_DECAY = 0.99
_FADE = 0.996
_PRIOR_TRIALS = 2.0
_PRIORS: dict[Source, float] = {"mtp": 0.7, "lookup": 0.5}
_PROBED_DEPTHS = (8, 4, 2, 6, 1, 3, 5, 7)
_OUTLIER = 3.0
"""A round that takes so many times longer than expected was held up by something else."""


@dataclass(frozen=True)
class Offer:
    """A draft that could be made now, of at most `limit` tokens."""

    source: Source
    limit: int
    match_tokens: int = 0
    """For a looked up one: how long a match it follows."""

    @property
    def kind(self) -> tuple[Source, int]:
        """Drafts of one kind share their acceptance: a long match means more than a short one."""
        return self.source, min(self.match_tokens.bit_length(), 4)


@dataclass(frozen=True)
class Plan:
    """What to do in a round: take up `offer` to `depth`, or, with depth 0, draft nothing."""

    depth: int = 0
    offer: Offer | None = None
    token_s: float = 0.0
    """Seconds per token of the plan thought best when this one was made."""
    probing: bool = False


class Acceptance:
    """How often each place of a draft was accepted lately, where all places before it were."""

    def __init__(self, prior: float) -> None:
        self._prior = prior
        self._hits = [0.0] * MAX_DEPTH
        self._trials = [0.0] * MAX_DEPTH

    @property
    def rates(self) -> list[float]:
        """One rate per place; where little is known, close to that of the place before."""
        rates, rate = [], self._prior
        for hits, trials in zip(self._hits, self._trials, strict=True):
            rate = (hits + _PRIOR_TRIALS * rate) / (trials + _PRIOR_TRIALS)
            rates.append(rate)
        return rates

    def fade(self) -> None:
        """A round has passed: what was seen before it counts a little less."""
        self._hits = [_FADE * hits for hits in self._hits]
        self._trials = [_FADE * trials for trials in self._trials]

    def record(self, depth: int, accepted: int) -> None:
        """Of a draft of `depth` tokens the first `accepted` were."""
        for place in range(min(accepted + 1, depth)):
            self._hits[place] = _DECAY * self._hits[place] + (place < accepted)
            self._trials[place] = _DECAY * self._trials[place] + 1


class RoundTimes:
    """Seconds of a round by source and depth: what was measured, then what rounds really took.

    A round takes something that measuring passes does not see: choosing, and the consumer of the tokens. Where a depth
    was not tried yet, it is taken to be what it is without drafts.
    """

    def __init__(self, costs: Costs) -> None:
        self._measured = costs
        self._plain_s = costs.verify_s[0]
        self._plain_rounds = 0
        self._tried: dict[tuple[Source, int], tuple[int, float]] = {}

    def seconds(self, source: Source | None, depth: int) -> float:
        if source is None or not depth:
            return self._plain_s
        if (source, depth) in self._tried:
            return self._tried[source, depth][1]
        return self._measured.round_s(source, depth) + self._plain_s - self._measured.verify_s[0]

    def knows(self, source: Source) -> bool:
        """Whether the costs of drafts from `source` have been measured."""
        return source == "lookup" or self._measured.draft_s is not None

    def measured(self, costs: Costs) -> None:
        """Passes were measured once more; what rounds really took stays."""
        self._measured = costs

    def believe(self, plain_s: float) -> None:
        """An undrafted round takes `plain_s`, whatever was known."""
        self._plain_s = plain_s

    def observe(self, source: Source | None, depth: int, seconds: float) -> None:
        """A round took `seconds`."""
        known = self.seconds(source, depth)
        if source is None or not depth:
            self._plain_rounds += 1
            self._plain_s = _nearer(known, seconds, self._plain_rounds)
        else:
            rounds = self._tried.get((source, depth), (0, known))[0] + 1
            self._tried[source, depth] = (rounds, _nearer(known, seconds, rounds))


def _nearer(known: float, seen: float, rounds: int) -> float:
    """`known` moved towards what the last of `rounds` was `seen` to take: early ones count more, later ones a tenth.

    Later ones that are far off, as where another program had the machine, count no more than those a quarter off.
    """
    if rounds > 4:
        seen = min(max(seen, 0.75 * known), 1.25 * known)
    return known + max(0.1, 1 / (rounds + 1)) * (seen - known)


def expected_tokens(rates: Sequence[float]) -> list[float]:
    """What rounds of depth 0, 1, ... bring on average, by the rates at which each place is accepted."""
    expected, reached = [1.0], 1.0
    for rate in rates:
        reached *= rate
        expected.append(expected[-1] + reached)
    return expected


class FixedDepth:
    """Always drafts as many tokens as asked, from the first offer."""

    undrafted_s = None
    """Nothing is measured."""

    def __init__(self, depth: int) -> None:
        self._depth = depth

    def needs_costs(self, *, drafter: bool) -> bool:
        return False

    def start(self, costs: Costs) -> None:
        """Costs do not matter here."""

    def choose(self, offers: Sequence[Offer]) -> Plan:
        return Plan(min(self._depth, offers[0].limit), offers[0]) if offers and self._depth else Plan()

    def record(self, plan: Plan, accepted: int, seconds: float, *, steady: bool) -> None:
        """What came of it does not matter here."""


class DepthController:
    """Chooses the source and depth of each round; one lives as long as a model, and learns from all its answers."""

    def __init__(self) -> None:
        self._times: RoundTimes | None = None
        self._acceptance: dict[tuple[Source, int], Acceptance] = {}
        self._probing_s = 0.0
        self._balance_s = 0.0
        self._probes = 0
        self._rounds_since_plain = 0
        self._quick_s: list[float] = []

    def needs_costs(self, *, drafter: bool) -> bool:
        """Whether anything is to be measured first; with a `drafter`, also how long one step of it takes."""
        return self._times is None or (drafter and not self._times.knows("mtp"))

    @property
    def undrafted_s(self) -> float | None:
        """Seconds of a round without drafts, as last measured on this machine; None before that.

        Until such rounds have been seen it is a bare pass over one token, which takes a little less.
        """
        return None if self._times is None else self._times.seconds(None, 0)

    def start(self, costs: Costs) -> None:
        """From now on it can choose among what `costs` tell of."""
        if self._times is not None:
            self._times.measured(costs)
            return
        self._times = RoundTimes(costs)
        self._balance_s = BALANCE_TOKENS * costs.verify_s[0]

    def choose(self, offers: Sequence[Offer]) -> Plan:
        """The plan for a round in which `offers` can be drafted; asking changes nothing."""
        if self._times is None:
            return Plan()
        offers = [offer for offer in offers if self._times.knows(offer.source)]
        best = self._best(offers)
        if not offers or self._balance_s < 0:
            return Plan(token_s=best.token_s)
        if self._rounds_since_plain >= PLAIN_EVERY_ROUNDS:
            return Plan(token_s=best.token_s)
        if self._probing_s <= 0:
            return self._probe(offers, best)
        return best

    def record(self, plan: Plan, accepted: int, seconds: float, *, steady: bool) -> None:
        """A round went as planned, `accepted` tokens of its draft came out, and it took `seconds`.

        `steady` is said of an undrafted round between two others, each on its way before the one before it had ended:
        these tell what not drafting takes. The time of one beside a draft is mixed up with that of its neighbours.
        """
        if self._times is None:
            return
        source = plan.offer.source if plan.offer else None
        seconds = min(seconds, _OUTLIER * self._times.seconds(source, plan.depth))
        plain_s, known_s = self._times.seconds(None, 0), self._times.seconds(source, plan.depth)
        if plan.depth or steady:
            self._times.observe(source, plan.depth, seconds)
        self._rounds_since_plain = 0 if steady else self._rounds_since_plain + 1
        if steady:
            self._look_for_quicker(seconds, plain_s)
        gap_s = 0.0 if plan.depth or steady else GAP_SHARE * plain_s
        gained_s = (accepted + 1) * plain_s - min(seconds, HELD_UP * known_s) if plan.depth else -gap_s
        self._balance_s = min(self._balance_s + gained_s + ALLOWED_LOSS_SHARE * seconds, MAX_BALANCE_TOKENS * plain_s)
        for acceptance in self._acceptance.values():
            acceptance.fade()
        if plan.offer and plan.depth:
            self._rates(plan.offer).record(plan.depth, accepted)
        self._probing_s += gap_s - PROBING_SHARE * seconds
        if plan.probing:
            self._probes += 1
            self._probing_s += seconds - (accepted + 1) * plan.token_s
        self._probing_s = max(self._probing_s, -PROBING_CREDIT_TOKENS * plain_s)

    def _look_for_quicker(self, seconds: float, plain_s: float) -> None:
        """Undrafted rounds that become quick again must be noticed soon: all else is judged beside them."""
        assert self._times is not None
        self._quick_s = [*self._quick_s, seconds] if seconds < QUICK_SHARE * plain_s else []
        if len(self._quick_s) == QUICK_ROUNDS:
            self._times.believe(max(self._quick_s))
            self._quick_s = []
        elif self._quick_s:
            self._rounds_since_plain = PLAIN_EVERY_ROUNDS  # the next one is undrafted, too

    def _best(self, offers: Sequence[Offer]) -> Plan:
        if self._times is None:
            return Plan()
        best, best_s = Plan(), self._times.seconds(None, 0)
        for offer in offers:
            expected = expected_tokens(self._rates(offer).rates)
            for depth in range(1, offer.limit + 1):
                token_s = self._times.seconds(offer.source, depth) / expected[depth]
                if token_s < best_s:
                    best, best_s = Plan(depth, offer), token_s
        return Plan(best.depth, best.offer, best_s)

    def _probe(self, offers: Sequence[Offer], best: Plan) -> Plan:
        """Another depth of one of the offers, each in its turn."""
        offer = offers[self._probes % len(offers)]
        depth = min(_PROBED_DEPTHS[self._probes // len(offers) % len(_PROBED_DEPTHS)], offer.limit)
        return Plan(depth, offer, best.token_s, probing=True)

    def _rates(self, offer: Offer) -> Acceptance:
        return self._acceptance.setdefault(offer.kind, Acceptance(_PRIORS[offer.source]))
