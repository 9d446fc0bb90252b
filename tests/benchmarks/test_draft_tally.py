from __future__ import annotations

from dataclasses import dataclass
from typing import Any, cast

import pytest

from benchmarks.draft_tally import Places, Run, Tally, Timed, Watched
from gemma_mlx.answer import Reply
from gemma_mlx.decoding.depth import FixedDepth, Offer, Plan


@dataclass(frozen=True)
class Counts:
    """What a reply tells of an answer."""

    tokens: tuple[int, ...]
    target_passes: int
    accepted_tokens: int = 0
    drafted_tokens: int = 0
    time_to_first_token_s: float = 0.1

    @property
    def generated_tokens(self) -> int:
        return len(self.tokens)


def reply(*arguments: Any, **named: Any) -> Reply:
    return cast("Reply", Counts(*arguments, **named))


def rounds(*counts: tuple[int, int]) -> list[tuple[Plan, int]]:
    return [(Plan(depth, Offer("mtp", 8) if depth else None), accepted) for depth, accepted in counts]


def test_a_place_counts_where_its_draft_reached_it() -> None:
    places = Places()
    places.add(rounds((3, 3), (0, 0), (2, 0), (3, 1)), reply(tuple(range(9)), 4, 4))
    assert places.drafted[:4] == [3, 3, 2, 0]
    assert places.accepted[:4] == [2, 1, 1, 0]
    assert places.shares == [0.6667, 0.3333, 0.5]


def test_what_was_drafted_after_the_end_of_an_answer_is_neither_right_nor_wrong() -> None:
    places = Places()
    # The second draft's first token ends the answer: 1 + (2 + 1) + 1 tokens in two passes.
    places.add(rounds((2, 2), (4, 3)), reply(tuple(range(5)), 2, 3))
    assert places.drafted[:3] == [2, 1, 0]
    assert places.accepted[:3] == [2, 1, 0]


def test_a_ratio_is_the_median_of_the_runs_and_a_differing_answer_is_counted() -> None:
    tally = Tally()
    for plain_s, drafted_s, last in ((1.0, 0.5, 5), (9.0, 3.0, 5), (1.1, 1.0, 6)):
        run = Run()
        plain, drafted = Timed(reply((1, 2, 5), 2), plain_s), Timed(reply((1, 2, last), 1, 1, 1), drafted_s)
        run.add(plain, drafted, Watched(FixedDepth(1), rounds((1, 1))))
        tally.add(run)
    figures = tally.figures(controlled=False)
    assert [figures[key] for key in ("ratio", "ratio_min", "ratio_max")] == pytest.approx([2.0, 1.1, 3.0])
    assert (figures["identical"], figures["differing_answers"], figures["answers"]) == (False, 1, 3)
    assert figures["tokens_per_pass"] == 2
