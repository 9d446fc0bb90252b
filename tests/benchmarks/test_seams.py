from __future__ import annotations

import pytest

from benchmarks.seams import planted, unjoined
from gemma_mlx.tasks.seams import without_overlap


@pytest.mark.parametrize(
    ("kind", "otherwise", "most_twice", "most_lost"),
    [("prose", 0.1, 0.5, 0.02), ("digits", 0.1, 0.55, 0.03), ("repeated", 0.0, 0.2, 0.6)],
)
def test_few_words_are_said_twice_and_fewer_are_lost(
    kind: str, otherwise: float, most_twice: float, most_lost: float
) -> None:
    joined, plain = (planted(kind, otherwise, 500, join) for join in (without_overlap, unjoined))
    assert joined["twice"] < most_twice * plain["twice"]
    assert joined["lost"] <= 1000 * most_lost
    assert plain["lost"] == 0
