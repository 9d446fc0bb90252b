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
    rule: DepthController | FixedDepth,
    costs: Costs,
    rates_at: Callable[[int], Rates],
    noise: float = 0.05,
    slowed: Callable[[int], float] = lambda _: 1,
) -> Callable[[int, int], float]:
    """Runs `rule` for ROUNDS; returns the tokens per second to be expected from one round up to another.

    `slowed` is how many times longer a round takes; what is returned leaves that out.
    """
    draw = random.Random(5)
    brought, took, plain_rounds = [], [], 0
    if rule.needs_costs(drafter=True):
        rule.start(costs)
    for index in range(ROUNDS):
        plan = rule.choose([Offer("mtp", MAX_DEPTH)])
        rates = rates_at(index)
        accepted = next((n for n in range(plan.depth) if draw.random() >= rates[n]), plan.depth)
        seconds = costs.round_s("mtp", plan.depth) * (1 + noise * draw.uniform(-1, 1)) * slowed(index)
        plain_rounds = 0 if plan.depth else plain_rounds + 1
        rule.record(plan, accepted, seconds, steady=plain_rounds > 1)
        brought.append(expected_tokens(rates)[plan.depth])
        took.append(costs.round_s("mtp", plan.depth))
    return lambda start, stop: sum(brought[start:stop]) / sum(took[start:stop])


def best_fixed(costs: Costs, rates: Rates) -> float:
    """Tokens per second of the best fixed depth, on average."""
    expected = expected_tokens(rates)
    return max(expected[depth] / costs.round_s("mtp", depth) for depth in range(MAX_DEPTH + 1))


@pytest.mark.parametrize("costs", COSTS)
@pytest.mark.parametrize("rates", RATES)
def test_steady_text_gets_nearly_the_best_fixed_depth_and_loses_nothing(costs: str, rates: str) -> None:
    table, accepted = COSTS[costs], RATES[rates]
    found = speed(DepthController(), table, lambda _: accepted)(WARM_UP, ROUNDS)
    assert found >= 0.95 * best_fixed(table, accepted)
    assert found >= 0.97 / table.verify_s[0]


@pytest.mark.parametrize("costs", COSTS)
@pytest.mark.parametrize(
    ("before", "after"),
    [("always 0.9", "always 0.0"), ("always 0.0", "always 0.9"), ("late", "falling"), ("always 0.4", "late")],
)
def test_text_that_changes_half_way_is_followed(costs: str, before: str, after: str) -> None:
    table, half = COSTS[costs], ROUNDS // 2
    found = speed(DepthController(), table, lambda index: RATES[before if index < half else after])
    whole = max(
        2 / sum(table.round_s("mtp", depth) / expected_tokens(RATES[rates])[depth] for rates in (before, after))
        for depth in range(MAX_DEPTH + 1)
    )
    assert found(WARM_UP, ROUNDS) >= 0.95 * whole
    assert found(WARM_UP, ROUNDS) >= 0.97 / table.verify_s[0]
    assert found(half + WARM_UP, ROUNDS) >= 0.97 / table.verify_s[0]
    assert found(half + 2 * WARM_UP, ROUNDS) >= 0.93 * best_fixed(table, RATES[after])


@pytest.mark.parametrize("seed", range(4))
def test_any_rates_and_costs_lose_nothing(seed: int) -> None:
    draw = random.Random(seed)
    for _ in range(8):
        rates = [draw.random() ** draw.choice([0.3, 1, 2]) for _ in range(MAX_DEPTH)]
        slope = draw.choice([0.02, 0.1, 0.3, 1.0])
        verify_s = [1 + sum(slope * 2 * draw.random() for _ in range(rows)) for rows in range(MAX_DEPTH + 1)]
        table = Costs(draw.choice([0.01, 0.05, 0.1, 0.4]), tuple(sorted(verify_s)))
        found = speed(DepthController(), table, lambda _, rates=rates: rates, noise=0.1)(WARM_UP, ROUNDS)  # type: ignore[misc]
        assert found >= 0.97 / table.verify_s[0]
        assert found >= 0.95 * best_fixed(table, rates)


@pytest.mark.parametrize("wrong", [0.5, 0.8, 1.5])
@pytest.mark.parametrize("costs", ["M4 4-bit", "M1 row by row"])
def test_costs_measured_wrongly_are_put_right_by_the_rounds(costs: str, wrong: float) -> None:
    table = COSTS[costs]
    measured = Costs(table.draft_s * wrong, (table.verify_s[0], *[wrong * seconds for seconds in table.verify_s[1:]]))

    class Misled(DepthController):
        def start(self, costs: Costs) -> None:
            super().start(measured)

    for rates in ("always 0.0", "always 0.9"):
        found = speed(Misled(), table, lambda _, rates=rates: RATES[rates])(WARM_UP, ROUNDS)  # type: ignore[misc]
        assert found >= 0.97 / table.verify_s[0]
        assert found >= 0.94 * best_fixed(table, RATES[rates])


@pytest.mark.parametrize("costs", ["M4 4-bit", "M1 row by row", "flat"])
@pytest.mark.parametrize("rates", ["always 0.0", "always 0.4", "always 0.9"])
def test_undrafted_rounds_measured_twice_as_slow_are_put_right(costs: str, rates: str) -> None:
    table = COSTS[costs]
    measured = Costs(table.draft_s, (2 * table.verify_s[0], *table.verify_s[1:]))

    class Misled(DepthController):
        def start(self, costs: Costs) -> None:
            super().start(measured)

    found = speed(Misled(), table, lambda _: RATES[rates])(WARM_UP, ROUNDS)
    assert found >= 0.97 / table.verify_s[0]
    assert found >= 0.94 * best_fixed(table, RATES[rates])


@pytest.mark.parametrize("costs", ["M4 4-bit", "flat", "M1 row by row"])
def test_a_machine_that_becomes_quick_again_is_noticed(costs: str) -> None:
    table, slow_rounds = COSTS[costs], 1000
    found = speed(
        DepthController(), table, lambda _: RATES["always 0.0"], slowed=lambda at: 3 if at < slow_rounds else 1
    )
    assert found(slow_rounds + WARM_UP, ROUNDS) >= 0.97 / table.verify_s[0]


@pytest.mark.parametrize(("share", "times"), [(0.1, 4.0), (0.2, 5.0)])
def test_rounds_that_another_program_holds_up_do_not_end_drafting(share: float, times: float) -> None:
    table, rates = COSTS["M4 4-bit"], RATES["always 0.6"]
    for seed in range(6):
        draw = random.Random(seed)
        found = speed(DepthController(), table, lambda _: rates, slowed=lambda _: times if draw.random() < share else 1)  # noqa: B023
        assert found(WARM_UP, ROUNDS) >= 0.85 * best_fixed(table, rates)


@pytest.mark.parametrize("rates", ["always 0.0", "always 0.6", "falling"])
def test_what_each_round_takes_beyond_its_passes_is_added_to_depths_not_tried(rates: str) -> None:
    passes = COSTS["M4 4-bit"]
    table = Costs(passes.draft_s, tuple(0.6 + seconds for seconds in passes.verify_s))  # a slow consumer of the tokens

    class Misled(DepthController):
        def start(self, costs: Costs) -> None:
            super().start(passes)

    found = speed(Misled(), table, lambda _: RATES[rates])(WARM_UP, ROUNDS)
    assert found >= 0.97 / table.verify_s[0]
    assert found >= 0.95 * best_fixed(table, RATES[rates])


def test_drafting_that_only_costs_stops_at_once_whatever_was_measured() -> None:
    rule = DepthController()
    rule.start(Costs(0.0, (1.0,) * 9))
    lost, rounds = 0.0, 0
    while lost < 1000 and rounds < 300:
        plan = rule.choose([Offer("mtp", MAX_DEPTH)])
        rule.record(plan, 0, 2.0 if plan.depth else 1.0, steady=not plan.depth)
        lost, rounds = lost + (plan.depth > 0), rounds + 1
    assert lost <= 8 + 0.02 * rounds + 2


def test_without_an_offer_nothing_is_drafted() -> None:
    rule = DepthController()
    rule.start(COSTS["flat"])
    assert rule.choose([]).depth == 0


def test_the_step_of_a_drafter_that_comes_later_is_measured_then() -> None:
    rule = DepthController()
    assert (rule.undrafted_s, rule.needs_costs(drafter=False)) == (None, True)
    rule.start(Costs(None, (1.0,) * 9))
    for _ in range(60):
        rule.record(Plan(), 0, 1.1, steady=True)
    offers = [Offer("mtp", MAX_DEPTH)]
    assert (rule.needs_costs(drafter=False), rule.needs_costs(drafter=True)) == (False, True)
    assert rule.choose(offers).depth == 0  # nothing is known of what it would take
    rule.start(Costs(0.05, (1.0,) * 9))
    assert not rule.needs_costs(drafter=True)
    assert rule.undrafted_s == pytest.approx(1.1, rel=0.01)  # what rounds took counts, not what was measured first
    assert rule.choose(offers).offer == offers[0]


def test_asking_changes_nothing() -> None:
    rule = DepthController()
    rule.start(COSTS["flat"])
    assert rule.choose([Offer("mtp", 8)]) == rule.choose([Offer("mtp", 8)])


@pytest.mark.parametrize("offers", [[Offer("mtp", 3)], [Offer("lookup", 2, 5), Offer("mtp", 3)]])
def test_a_draft_is_never_longer_than_what_is_offered(offers: list[Offer]) -> None:
    rule = DepthController()
    rule.start(COSTS["flat"])
    for _ in range(300):
        plan = rule.choose(offers)
        assert plan.offer is None or plan.depth <= plan.offer.limit
        rule.record(plan, plan.depth, 1.0, steady=False)


def test_the_better_source_is_taken_and_long_matches_are_told_from_short_ones() -> None:
    rule = DepthController()
    rule.start(COSTS["M4 4-bit"])
    chosen: dict[int, list[Source | None]] = {2: [], 9: []}
    for index in range(2000):
        match = 9 if index % 3 else 2
        plan = rule.choose([Offer("lookup", 8, match), Offer("mtp", 8)])
        source = plan.offer.source if plan.offer else None
        accepted = {"lookup": plan.depth if match == 9 else 0, "mtp": min(2, plan.depth), None: 0}[source]
        rule.record(plan, accepted, COSTS["M4 4-bit"].round_s(source or "mtp", plan.depth), steady=not plan.depth)
        chosen[match].append(source)
    assert chosen[9][-400:].count("lookup") > 350
    assert chosen[2][-200:].count("mtp") > 170


def test_rates_of_places_never_reached_follow_the_place_before() -> None:
    acceptance = Acceptance(0.7)
    for _ in range(100):
        acceptance.record(2, 2)
    assert min(acceptance.rates) > 0.95
    for _ in range(400):
        acceptance.record(8, 1)
    first, second, *others = acceptance.rates
    assert first > 0.95
    assert max(second, *others) < 0.08


def test_expected_tokens_adds_up_the_chances_of_reaching_each_place() -> None:
    assert expected_tokens([0.5, 0.5]) == [1.0, 1.5, 1.75]


def test_a_fixed_depth_is_kept_as_far_as_offered() -> None:
    assert FixedDepth(5).choose([Offer("mtp", 8)]) == Plan(5, Offer("mtp", 8))
    assert FixedDepth(5).choose([Offer("mtp", 2)]).depth == 2
    assert FixedDepth(0).choose([Offer("mtp", 8)]).depth == 0
