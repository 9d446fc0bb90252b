"""How far a text is from the one expected: character and word error rates, and how many texts are right as a whole.

A rate is over a whole set, as is usual: all edits (substituted, left out, put in) divided by all characters or words
expected, so that a long text weighs more than a short one. It may exceed 1. Words are what spaces separate: for
languages without spaces, read the character error rate.

Two ways to write both texts before they are compared; in each, white space is one space, and Unicode is composed (NFC):

    as written    nothing else: case and punctuation count
    as spoken     compatibility forms are resolved (NFKC), case is folded, and punctuation separates words, but for an
                  apostrophe in a word and marks in a number: "It's 1.5, Tom!" is "it's 1.5 tom". Signs (%, +) stay.
                  Numbers are not spelled out: "two" for "2" is an error.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

from gemma_mlx.errors import UsageError

_QUOTES = str.maketrans({"’": "'", "‘": "'"})
_INSIDE = re.compile(r"(?<=\w)'(?=\w)|(?<=\d)[.,:](?=\d)")


@dataclass(frozen=True)
class ErrorRates:
    """Counts over all texts of a set."""

    texts: int
    exact: int
    """Texts without any edit."""
    characters: int
    character_edits: int
    words: int
    word_edits: int

    @property
    def character_error_rate(self) -> float | None:
        """None where nothing was expected."""
        return self.character_edits / self.characters if self.characters else None

    @property
    def word_error_rate(self) -> float | None:
        """None where nothing was expected."""
        return self.word_edits / self.words if self.words else None

    @property
    def figures(self) -> dict[str, Any]:
        return {
            "texts": self.texts,
            "exact": self.exact,
            "characters": self.characters,
            "character_edits": self.character_edits,
            "character_error_rate": self.character_error_rate,
            "words": self.words,
            "word_edits": self.word_edits,
            "word_error_rate": self.word_error_rate,
        }


def require_rapidfuzz() -> None:
    """Raises UsageError where edits cannot be counted."""
    if find_spec("rapidfuzz") is None:
        raise UsageError("error rates need rapidfuzz; install it with: pip install 'gemma-mlx[bench]'")


def as_written(text: str) -> str:
    """`text` in composed Unicode, all white space as one space."""
    return " ".join(unicodedata.normalize("NFC", text).split())


def as_spoken(text: str) -> str:
    """`text` without what is not heard: case, and punctuation that is not part of a word or a number."""
    text = unicodedata.normalize("NFKC", text).translate(_QUOTES).casefold()
    inside = {match.start() for match in _INSIDE.finditer(text)}
    heard = (
        character if index in inside or not unicodedata.category(character).startswith("P") else _in_place_of(character)
        for index, character in enumerate(text)
    )
    return as_written("".join(heard))


def _in_place_of(punctuation: str) -> str:
    """A sign like % is spoken, and Unicode counts it as punctuation; the rest separates words."""
    return punctuation if punctuation in "%&@#*" else " "


def error_rates(pairs: Iterable[tuple[str, str]]) -> ErrorRates:
    """Compares (expected, found) texts that are already written as they shall be compared."""
    from rapidfuzz.distance import Levenshtein

    texts = exact = characters = character_edits = words = word_edits = 0
    for expected, found in pairs:
        edits = Levenshtein.distance(expected, found)
        expected_words = expected.split()
        texts += 1
        exact += not edits
        characters += len(expected)
        character_edits += edits
        words += len(expected_words)
        word_edits += Levenshtein.distance(expected_words, found.split())
    return ErrorRates(texts, exact, characters, character_edits, words, word_edits)
