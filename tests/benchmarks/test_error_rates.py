from __future__ import annotations

import pytest

from benchmarks.error_rates import as_spoken, as_written, error_rates


def test_rates_are_over_all_texts_and_count_each_edit() -> None:
    # One letter put in; "cat" left out and "mat" for "hat": 3 of 6 words, with "sits" for "sit".
    found = error_rates([("a cat sit", "a sits"), ("on the hat", "on the mat"), ("", "")])
    assert (found.texts, found.exact) == (3, 1)
    assert (found.words, found.word_edits, found.word_error_rate) == (6, 3, 0.5)
    assert (found.characters, found.character_edits) == (19, 4 + 1 + 1)
    assert found.character_error_rate == pytest.approx(6 / 19)


def test_more_edits_than_words_are_a_rate_above_one() -> None:
    found = error_rates([("2", "two or three")])
    assert found.word_error_rate == 3.0
    assert found.exact == 0


def test_without_anything_expected_there_is_no_rate() -> None:
    found = error_rates([("", "hm")])
    assert (found.character_error_rate, found.word_error_rate, found.character_edits) == (None, None, 2)


def test_words_are_compared_as_wholes_and_in_order() -> None:
    assert error_rates([("one two", "two one")]).word_edits == 2
    assert error_rates([("nowhere", "now here")]).word_edits == 2


@pytest.mark.parametrize(
    ("text", "spoken"),
    [
        ("It's 1.5, Tom!", "it's 1.5 tom"),
        ("It’s here", "it's here"),
        ("10:30 - 1,000 m.", "10:30 1,000 m"),
        ("well-known: “yes”", "well known yes"),
        ("100 % & C++", "100 % & c++"),
        ("STRASSE straße", "strasse strasse"),
        ("ﬁne ２", "fine 2"),
        ("'quoted' ends.", "quoted ends"),
        ("Cafe\u0301", "caf\u00e9"),
        ("你好，世界。", "你好 世界"),
        ("...", ""),
    ],
)
def test_what_is_not_heard_does_not_count(text: str, spoken: str) -> None:
    assert as_spoken(text) == spoken
    assert as_spoken(spoken) == spoken


def test_as_written_only_white_space_and_composition_are_one() -> None:
    assert as_written("  A\u00a0b,\n\tC. ") == "A b, C."
    assert as_written("e\u0301") == as_written("\u00e9")
    assert as_written("A") != as_written("a")
