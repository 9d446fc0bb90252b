from __future__ import annotations

import time

from hypothesis import given
from hypothesis import strategies as st

from gemma_mlx.decoding.lookup import MAX_MATCH_TOKENS, PromptLookup, Proposal


def propose(ids: list[int], limit: int = 8, barred: tuple[int, ...] = ()) -> Proposal | None:
    return PromptLookup(ids, lambda index: index not in barred).propose(limit)


def test_what_followed_the_last_two_tokens_is_proposed() -> None:
    assert propose([1, 2, 3, 4, 9, 1, 2], limit=3) == Proposal((3, 4, 9), 2)


def test_one_token_alone_is_no_match() -> None:
    assert propose([1, 2, 3, 9, 2]) is None
    assert propose([]) is None
    assert propose([5]) is None


def test_the_longest_match_wins_over_later_ones() -> None:
    assert propose([7, 1, 2, 3, 0, 8, 1, 2, 4, 0, 7, 1, 2], limit=1) == Proposal((3,), 3)


def test_of_equal_matches_the_latest_wins() -> None:
    assert propose([1, 2, 3, 0, 1, 2, 4, 5, 1, 2], limit=1) == Proposal((4,), 2)


def test_a_text_that_goes_round_is_proposed_as_going_on() -> None:
    assert propose([1, 2, 3, 1, 2, 3], limit=7) == Proposal((1, 2, 3, 1, 2, 3, 1), 3)
    assert propose([4, 4, 4], limit=3) == Proposal((4, 4, 4), 2)


def test_a_proposal_ends_before_a_token_that_must_not_be_drafted() -> None:
    assert propose([1, 2, 3, 106, 9, 1, 2], barred=(106,)) == Proposal((3,), 2)
    assert propose([1, 2, 106, 9, 1, 2], barred=(106,)) is None


def test_an_earlier_place_serves_where_the_latest_leads_to_a_barred_token() -> None:
    assert propose([1, 2, 5, 8, 1, 2, 106, 1, 2], limit=2, barred=(106,)) == Proposal((5, 8), 2)


@given(st.lists(st.integers(0, 3), max_size=60), st.integers(1, 8))
def test_growing_an_index_equals_building_it_and_proposals_follow_a_real_match(ids: list[int], limit: int) -> None:
    grown = PromptLookup(ids[: len(ids) // 2], lambda index: True)
    for index in ids[len(ids) // 2 :]:
        grown.extend([index])
    found = grown.propose(limit)
    assert found == propose(ids, limit)
    places = [place for place in range(1, len(ids) - 1) if ids[place - 1 : place + 1] == ids[-2:]]
    assert (found is not None) == bool(places)
    if found is not None:
        assert len(found.ids) == limit
        matches = {place: _match(ids, place) for place in places[-32:]}
        longest = max(matches.values())
        assert found.match_tokens == longest
        assert any(found.ids[0] == ids[place + 1] for place, match in matches.items() if match == longest)


def _match(ids: list[int], place: int) -> int:
    length = 0
    while length < MAX_MATCH_TOKENS and length <= place and ids[place - length] == ids[-1 - length]:
        length += 1
    return length


def test_a_long_context_takes_no_longer_to_look_into() -> None:
    def seconds(tokens: int) -> float:
        lookup = PromptLookup([(index * index) % 997 for index in range(tokens)], lambda index: True)
        started = time.perf_counter()
        for index in range(200):
            lookup.extend([index % 7])
            lookup.propose(8)
        return time.perf_counter() - started

    assert min(seconds(100_000) for _ in range(3)) < 20 * min(seconds(1_000) for _ in range(3))


@given(st.lists(st.integers(0, 3), max_size=40), st.lists(st.integers(0, 3), max_size=12), st.integers(0, 40))
def test_what_is_not_kept_leaves_no_trace(ids: list[int], later: list[int], count: int) -> None:
    lookup = PromptLookup(ids, lambda index: True)
    lookup.extend(later)
    lookup.keep(min(count, len(ids)))
    lookup.extend(later)
    assert lookup.propose(8) == propose([*ids[:count], *later])
    assert vars(lookup)["_latest"] == vars(PromptLookup([*ids[:count], *later], lambda index: True))["_latest"]
