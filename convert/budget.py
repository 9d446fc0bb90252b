"""Which packing each module gets, so that the damage is least and the bytes are not more than there are.

A knapsack with one choice for each module, solved exactly. What the choices of a module cost beyond its cheapest one
is a multiple of the same unit for all: 123 kB in the 12B, whose matrices have sizes of one family. So the table of the
least damage for each number of units is small, and is filled module by module:

    least[units] = min over the module's choices of  least_before[units - units of the choice] + damage of the choice
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from convert.recipes import Packing

MOST_UNITS = 1 << 17
"""Where sizes have no large unit in common, the unit is coarser than they are, and each choice rounded up to it."""


@dataclass(frozen=True)
class Choice:
    """A way to pack a module: what it takes and what it costs."""

    packing: Packing
    nbytes: int
    damage: float


def smallest_bytes(choices: Mapping[str, Sequence[Choice]]) -> int:
    """What all modules take at least."""
    return sum(min(choice.nbytes for choice in of_module) for of_module in choices.values())


def largest_bytes(choices: Mapping[str, Sequence[Choice]]) -> int:
    """What all modules take at most."""
    return sum(max(choice.nbytes for choice in of_module) for of_module in choices.values())


def choose(choices: Mapping[str, Sequence[Choice]], budget_bytes: int) -> dict[str, Choice]:
    """A choice for each module, with the least sum of damages within `budget_bytes`.

    The same choices give the same answer in whatever order they come; of equal damages the one of fewer bytes is taken.
    ValueError where not even the smallest fit.
    """
    spare_bytes = min(budget_bytes, largest_bytes(choices)) - smallest_bytes(choices)
    if spare_bytes < 0:
        raise ValueError(f"{budget_bytes} bytes are {-spare_bytes} too few")
    in_order = {
        name: sorted(choices[name], key=lambda c: (c.nbytes, c.damage, c.packing.bits)) for name in sorted(choices)
    }
    extra_bytes = {name: [c.nbytes - of_module[0].nbytes for c in of_module] for name, of_module in in_order.items()}
    common_bytes = math.gcd(*(extra for extras in extra_bytes.values() for extra in extras)) or 1
    unit_bytes = max(common_bytes, -(-spare_bytes // MOST_UNITS))
    units = spare_bytes // unit_bytes
    least = np.zeros(units + 1)
    taken = {}
    for name, of_module in in_order.items():
        costs = [-(-extra // unit_bytes) for extra in extra_bytes[name]]
        before, least = least, least + of_module[0].damage
        taken[name] = np.zeros(units + 1, np.uint8)
        for index, (choice, cost) in enumerate(zip(of_module, costs, strict=True)):
            if cost > units:
                continue
            better = before[: units + 1 - cost] + choice.damage < least[cost:]
            taken[name][cost:][better] = index
            least[cost:][better] = (before[: units + 1 - cost] + choice.damage)[better]
    chosen: dict[str, Choice] = {}
    for name in reversed(in_order):
        index = int(taken[name][units])
        chosen[name] = in_order[name][index]
        units -= -(-extra_bytes[name][index] // unit_bytes)
    return dict(sorted(chosen.items()))
