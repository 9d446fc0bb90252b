"""What counts as a sample lost, repeated, silent or changed."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from benchmarks.microphone_point import continuity
from benchmarks.virtual_microphone import counting, numbers


def test_each_sample_tells_its_number_up_to_a_quarter_of_an_hour() -> None:
    last = 15 * 60 * 16_000
    assert numbers(counting(last)[-3:]).tolist() == [last - 2, last - 1, last]


@pytest.mark.parametrize(
    ("heard", "found"),
    [
        ([0, 0, 7, 8, 9, 0], {"numbered": 3, "lost": 0, "repeated": 0, "silent": 0, "changed": 0}),
        ([1, 2, 5, 6], {"numbered": 4, "lost": 2, "repeated": 0, "silent": 0, "changed": 0}),
        ([1, 2, 1, 2, 3], {"numbered": 5, "lost": 0, "repeated": 2, "silent": 0, "changed": 0}),
        ([1, 2, 0, 0, 3], {"numbered": 3, "lost": 0, "repeated": 0, "silent": 2, "changed": 0}),
        ([1, 2.5, 3, -4], {"numbered": 2, "lost": 1, "repeated": 0, "silent": 0, "changed": 2}),
        ([0, 0], {"numbered": 0, "lost": 0, "repeated": 0, "silent": 0, "changed": 0}),
    ],
)
def test_what_became_of_the_samples(heard: list[float], found: dict[str, int]) -> None:
    samples: NDArray[np.float32] = (np.array(heard) * counting(1)[0]).astype(np.float32)
    assert continuity(samples) == {f"{kind}_samples": count for kind, count in found.items()}
