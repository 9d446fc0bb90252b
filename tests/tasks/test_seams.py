from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gemma_mlx.tasks.seams import without_overlap

WORDS = st.lists(st.integers(0, 10_000), unique=True, min_size=2, max_size=30).map(
    lambda numbers: [f"w{number}" for number in numbers]
)


@settings(deadline=None)
@given(words=WORDS, data=st.data())
def test_what_both_heard_is_written_once(words: list[str], data: st.DataObject) -> None:
    start = data.draw(st.integers(0, len(words) - 1))
    stop = data.draw(st.integers(start + 1, len(words)))
    left, right = without_overlap(" ".join(words[:stop]), " ".join(words[start:]), 12 + len(words))
    assert f"{left} {right}".split() == words


@settings(deadline=None)
@given(words=WORDS.filter(lambda words: len(words) > 9), data=st.data())
def test_half_a_word_on_either_side_gives_way(words: list[str], data: st.DataObject) -> None:
    start = data.draw(st.integers(1, len(words) - 6))
    stop = data.draw(st.integers(start + 4, len(words) - 1))
    heard_left = [*words[:stop], "half"]
    heard_right = ["alf", *words[start:]]
    left, right = without_overlap(" ".join(heard_left), " ".join(heard_right), 30)
    assert f"{left} {right}".split() == words


@settings(deadline=None)
@given(left=WORDS, right=st.lists(st.integers(0, 100), max_size=20).map(lambda n: [f"x{number}" for number in n]))
def test_without_anything_in_common_nothing_is_lost(left: list[str], right: list[str]) -> None:
    assert without_overlap(" ".join(left), " ".join(right), 12) == (" ".join(left), " ".join(right))


@pytest.mark.parametrize(
    ("left", "right", "joined"),
    [
        ("The quick, brown fox jum", "Brown fox jumps over.", ("The quick, brown fox", "jumps over.")),
        ("one two", "Two.", ("one two", "")),
        ("", "one", ("", "one")),
        ("我们今天去", "今天去北京", ("我们今天去", "北京")),
        ("a the b", "c the d", ("a the b", "c the d")),  # one word alike between two others is no seam
        ("to be or not", "say no more", ("to be or not", "say no more")),
        ("the ten dollar bill he fou", "dollars bill he found to her", ("the ten dollar bill he", "found to her")),
        ("old ten dollar bill he", "ten dollars bill he found", ("old ten dollar bill he", "found")),
        (
            "met at twenty-one Downing Street in",
            "at 21 Downing Street in London",
            ("met at twenty-one Downing Street in", "London"),
        ),
        ("0 3 9 8 4 3 9", "9 8 8 4 3 9 6 3 9 5", ("0 3 9 8 4 3 9", "6 3 9 5")),
        ("five five five zero", "five five zero five five", ("five five five zero", "five five")),
        ("it rained and rained and", "rained and stopped", ("it rained and rained and", "stopped")),
        ("saw the big", "the red car", ("saw the big", "the red car")),  # neither adjective may be half of the other
        ("one a two", "one b two three", ("one a two", "one b two three")),  # 2 less 2 is too little
    ],
)
def test_seams(left: str, right: str, joined: tuple[str, str]) -> None:
    assert without_overlap(left, right, 12) == joined


def test_a_repetition_further_back_than_the_overlap_stays() -> None:
    assert without_overlap("1 2 3 4 5 6", "1 2 3 4 5 6", 3) == ("1 2 3 4 5 6", "1 2 3 4 5 6")
