"""What came of drafts: counted by place, by depth and over time, and the speeds of answers with and without."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Any

from gemma_mlx.answer import Reply
from gemma_mlx.decoding.costs import MAX_DEPTH, Costs
from gemma_mlx.decoding.depth import Offer, Plan
from gemma_mlx.decoding.speculate import DepthRule

Figures = dict[str, Any]


@dataclass
class Watched:
    """A depth rule, and what it chose in the rounds of an answer and what came of it."""

    rule: DepthRule
    rounds: list[tuple[Plan, int]] = field(default_factory=list)

    @property
    def undrafted_s(self) -> float | None:
        return self.rule.undrafted_s

    def needs_costs(self, *, drafter: bool) -> bool:
        return self.rule.needs_costs(drafter=drafter)

    def start(self, costs: Costs) -> None:
        self.rule.start(costs)

    def choose(self, offers: Sequence[Offer]) -> Plan:
        return self.rule.choose(offers)

    def record(self, plan: Plan, accepted: int, seconds: float, *, steady: bool) -> None:
        self.rounds.append((plan, accepted))
        self.rule.record(plan, accepted, seconds, steady=steady)


@dataclass(frozen=True)
class Timed:
    """An answer, and the seconds from the end of its prompt to its last token.

    Not from its first token on: what drafts make that one wait for counts, too.
    """

    reply: Reply
    seconds: float


@dataclass
class Places:
    """By place in a draft, how many tokens were drafted and how many came out. None beyond an answer's end counts."""

    drafted: list[int] = field(default_factory=lambda: [0] * MAX_DEPTH)
    accepted: list[int] = field(default_factory=lambda: [0] * MAX_DEPTH)

    def add(self, rounds: Sequence[tuple[Plan, int]], reply: Reply) -> None:
        """Counts the drafts of an answer."""
        counts = [(plan.depth, accepted) for plan, accepted in rounds if plan.depth]
        before = sum(accepted for _, accepted in counts[:-1])
        if counts and reply.generated_tokens - reply.accepted_tokens == reply.target_passes:
            # A drafted token ended the answer. What was drafted after it is neither right nor wrong.
            counts[-1] = (reply.accepted_tokens - before, reply.accepted_tokens - before)
        for depth, accepted in counts:
            for place in range(depth):
                self.drafted[place] += 1
                self.accepted[place] += place < accepted

    @property
    def shares(self) -> list[float]:
        """Of the drafts that reach so far, the share that held up to and with this place."""
        return [round(kept / count, 4) for kept, count in zip(self.accepted, self.drafted, strict=True) if count]


@dataclass
class Run:
    """Each prompt once with and once without drafts."""

    plain: list[Timed] = field(default_factory=list)
    drafted: list[Timed] = field(default_factory=list)
    watched: list[Watched] = field(default_factory=list)

    def add(self, plain: Timed, drafted: Timed, watched: Watched) -> None:
        self.plain.append(plain)
        self.drafted.append(drafted)
        self.watched.append(watched)

    @property
    def chosen(self) -> list[Plan]:
        return [plan for watched in self.watched for plan, _ in watched.rounds]


class Tally:
    """All runs of a point."""

    def __init__(self) -> None:
        self._runs: list[Run] = []

    def add(self, run: Run) -> None:
        self._runs.append(run)

    def figures(self, *, controlled: bool) -> Figures:
        """The point's figures; those about what was chosen only where a controller chose."""
        plain_tps = [_tps(run.plain) for run in self._runs]
        drafted_tps = [_tps(run.drafted) for run in self._runs]
        pairs = zip(plain_tps, drafted_tps, strict=True)
        ratios = [drafted / plain for plain, drafted in pairs]
        plain, drafted = (
            [timed.reply for run in self._runs for timed in getattr(run, name)] for name in ("plain", "drafted")
        )
        differing = sum(one.tokens != other.tokens for one, other in zip(plain, drafted, strict=True))
        return {
            "answers": len(drafted),
            "identical": not differing,
            "differing_answers": differing,
            **self._counts(drafted),
            "plain_tps": median(plain_tps),
            "drafted_tps": median(drafted_tps),
            "ratio": median(ratios),
            "ratio_min": min(ratios),
            "ratio_max": max(ratios),
            "ratios": [round(ratio, 4) for ratio in ratios],
            "plain_first_token_s": median(reply.time_to_first_token_s for reply in plain),
            "drafted_first_token_s": median(reply.time_to_first_token_s for reply in drafted),
            **(self._choices(plain, drafted) if controlled else {}),
        }

    def _counts(self, drafted: Sequence[Reply]) -> Figures:
        places = Places()
        for run in self._runs:
            for watched, timed in zip(run.watched, run.drafted, strict=True):
                places.add(watched.rounds, timed.reply)
        tokens, passes, drafts, accepted = (
            sum(getattr(reply, name) for reply in drafted)
            for name in ("generated_tokens", "target_passes", "drafted_tokens", "accepted_tokens")
        )
        return {
            "tokens": tokens,
            "target_passes": passes,
            "drafted_tokens": drafts,
            "accepted_tokens": accepted,
            "acceptance": accepted / drafts if drafts else None,
            "tokens_per_pass": (tokens - len(drafted)) / passes
            if passes
            else None,  # the prompt's pass gives the first
            "drafted_by_place": places.drafted,
            "accepted_by_place": places.accepted,
            "acceptance_by_place": places.shares,
        }

    def _choices(self, plain: Sequence[Reply], drafted: Sequence[Reply]) -> Figures:
        """What a controller chose, over all runs and over time, and what its first answer waited for."""
        chosen = [plan for run in self._runs for plan in run.chosen]
        return {
            "rounds": len(chosen),
            "mean_depth": _mean([plan.depth for plan in chosen]),
            "undrafted_share": _mean([not plan.depth for plan in chosen]),
            "probing_share": _mean([plan.probing for plan in chosen]),
            "lookup_share": _mean([bool(plan.offer and plan.offer.source == "lookup") for plan in chosen]),
            "rounds_by_depth": [sum(plan.depth == depth for plan in chosen) for depth in range(MAX_DEPTH + 1)],
            "mean_depth_by_run": [_mean([plan.depth for plan in run.chosen]) for run in self._runs],
            "undrafted_share_by_run": [_mean([not plan.depth for plan in run.chosen]) for run in self._runs],
            "cold_first_token_s": drafted[0].time_to_first_token_s,
            "cold_plain_first_token_s": plain[0].time_to_first_token_s,
        }


def _tps(answers: Sequence[Timed]) -> float:
    return sum(timed.reply.generated_tokens for timed in answers) / sum(timed.seconds for timed in answers)


def _mean(values: Sequence[float]) -> float | None:
    return round(sum(values) / len(values), 4) if values else None
