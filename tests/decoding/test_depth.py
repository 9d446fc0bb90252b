"""The depth controller in simulated answers: rates of acceptance and costs of all kinds, no network."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

import pytest

from gemma_mlx.decoding.costs import MAX_DEPTH, Costs, Source
from gemma_mlx.decoding.depth import Acceptance, DepthController, FixedDepth, Offer, Plan, expected_tokens

ROUNDS, WARM_UP = 5000, 500
Rates = Sequence[float]

COSTS = {
    "flat": Costs(0.02, (1.0, *[1.05] * 8)),
    "M4 4-bit": Costs(0.08, (1.0, 1.03, 1.22, 1.47, 1.75, 2.07, 2.38, 2.69, 3.0)),
    "M1 row by row": Costs(0.1, (1.0, 1.9, 2.6, 3.3, 4.0, 4.4, 4.4, 4.4, 4.4)),
    "linear": Costs(0.05, tuple(float(rows) for rows in range(1, 10))),
    "dear drafter": Costs(0.7, (1.0, 1.1, 1.2, 1.3, 1.4, 1.5, 1.6, 1.7, 1.8)),
    "step at five": Costs(0.05, (1.0, 1.05, 1.1, 1.15, 1.2, 2.4, 2.4, 2.4, 2.4)),
}
RATES: dict[str, Rates] = {
    **{f"always {rate}": [rate] * MAX_DEPTH for rate in (0.0, 0.2, 0.4, 0.6, 0.7, 0.8, 0.9, 0.97, 1.0)},
    "falling": [0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2],
    "late": [0.4, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0],
    "one only": [0.95, *[0.0] * 7],
}


def speed(
    rule: DepthController | FixedDepth, costs: Costs, rates_at: Callable[[int], Rates], noise: float = 0.05
) -> Callable[[int, int], float]:
    """Runs `rule` for ROUNDS; returns the tokens per second to be expected from one round up to another."""
    draw = random.Random(5)
    brought, took, ahead = [], [], False
    if rule.needs_costs():
        rule.start(costs)
    for index in range(ROUNDS):
        plan = rule.choose([Offer("mtp", MAX_DEPTH)])
        rates = rates_at(index)
        accepted = next((n for n in range(plan.depth) if draw.random() >= rates[n]), plan.depth)
        seconds = costs.round_s("mtp", plan.depth) * (1 + noise * draw.uniform(-1, 1))
        rule.record(plan, accepted, seconds, ahead=ahead)
        ahead = plan.depth == 0
        brought.append(expected_tokens(rates)[plan.depth])
        took.append(costs.round_s("mtp", plan.depth))
    return lambda start, stop: sum(brought[start:stop]) / sum(took[start:stop])


def best_fixed(costs: Costs, rates: Rates) -> float:
    """Tokens per second of the best fixed depth, on average."""
    expected = expected_tokens(rates)
    return max(expected[depth] / costs.round_s("mtp", depth) for depth in range(MAX_DEPTH + 1))
