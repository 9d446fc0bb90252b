from __future__ import annotations

import numpy as np
import pytest

from benchmarks.pauses import figures, ours
from benchmarks.spoken import Utterance

TRUTH = [Utterance(1, 2, "a"), Utterance(3, 4, "b")]


def flags(*stretches: tuple[int, int]) -> np.ndarray:
    found = np.zeros(500, bool)
    for begin, end in stretches:
        found[begin:end] = True
    return found


def test_figures_of_a_perfect_and_of_a_poor_answer() -> None:
    perfect = figures(flags((100, 200), (300, 400)), TRUTH)
    assert (perfect["speech_missed"], perfect["silence_taken"], perfect["edge_error_max_s"]) == (0, 0, 0)
    assert (perfect["pauses"], perfect["pauses_missed"]) == (1, 0)
    poor = figures(flags((100, 350)), TRUTH)
    assert (poor["speech_missed"], poor["silence_taken"]) == (0.25, pytest.approx(1 / 3))
    assert poor["pauses_missed"] == 1
    assert poor["speech_unsent"] == pytest.approx(0.15)
    assert figures(flags(), TRUTH)["edge_error_95_s"] is None


def test_ours_has_a_flag_for_each_hop() -> None:
    assert len(ours(np.zeros(16_000, np.float32))) == 100
