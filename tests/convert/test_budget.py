from __future__ import annotations

import itertools
import random

import pytest

from convert.budget import MOST_UNITS, Choice, choose, largest_bytes, smallest_bytes
from convert.recipes import Packing


def _random_choices(seed: int, modules: int = 5, unit_bytes: int = 96) -> dict[str, list[Choice]]:
    rng = random.Random(seed)
    return {
        f"layers.{index}": [
            Choice(Packing(bits, 64), unit_bytes * rng.randint(1, 4) * bits, rng.random() * 4.0**-bits)
            for bits in (3, 4, 6)
        ]
        for index in range(modules)
    }


def _damage(chosen: dict[str, Choice]) -> float:
    return sum(choice.damage for choice in chosen.values())


def _bytes(chosen: dict[str, Choice]) -> int:
    return sum(choice.nbytes for choice in chosen.values())


@pytest.mark.parametrize("seed", range(20))
def test_no_other_choice_within_the_bytes_does_less_damage(seed: int) -> None:
    choices = _random_choices(seed)
    least, most = smallest_bytes(choices), largest_bytes(choices)
    budget = random.Random(seed).randint(least, most)
    chosen = choose(choices, budget)
    every = (dict(zip(choices, each, strict=True)) for each in itertools.product(*choices.values()))
    assert _bytes(chosen) <= budget
    assert _damage(chosen) == pytest.approx(min(_damage(each) for each in every if _bytes(each) <= budget))


def test_order_does_not_matter_and_equal_damage_takes_fewer_bytes() -> None:
    choices = _random_choices(3)
    budget = (smallest_bytes(choices) + largest_bytes(choices)) // 2
    turned = {name: choices[name][::-1] for name in reversed(choices)}
    assert choose(choices, budget) == choose(turned, budget)
    alike = {"a": [Choice(Packing(6, 64), 20, 0.5), Choice(Packing(4, 64), 10, 0.5)]}
    assert choose(alike, 100)["a"].nbytes == 10


def test_sizes_without_a_large_common_unit_stay_within_the_bytes() -> None:
    choices = {
        name: [Choice(Packing(4, 64), 10_000_019 + index, 1.0), Choice(Packing(6, 64), 30_000_001 + 7 * index, 0.1)]
        for index, name in enumerate("abcdef")
    }
    assert largest_bytes(choices) - smallest_bytes(choices) > MOST_UNITS
    budget = smallest_bytes(choices) + 3 * 20_001_000
    chosen = choose(choices, budget)
    assert _bytes(chosen) <= budget
    assert _damage(chosen) == pytest.approx(3 * 1.0 + 3 * 0.1)


def test_the_ends_are_all_smallest_and_all_largest() -> None:
    choices = {name: [Choice(Packing(3, 64), 10, 2.0), Choice(Packing(8, 64), 30, 1.0)] for name in "ab"}
    assert _bytes(choose(choices, 20)) == 20
    assert _bytes(choose(choices, 10**9)) == 60
    with pytest.raises(ValueError, match="1 too few"):
        choose(choices, 19)
