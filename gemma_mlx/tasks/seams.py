"""Two transcripts of overlapping sound -> one: words that both heard are written once.

Where a sound was cut between two pauses, both sides hear a little of the other, and each may get the word at its own
edge wrong, for it hears half of it:

    left     the quick brown fox jum
    right                    box jumps over the dog        seam: "jumps" is right, "fox" is left's
    joined   the quick brown fox jumps over the dog
"""

from __future__ import annotations

import re
from dataclasses import dataclass

_WORD = re.compile(r"[\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff]|[^\s\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff]+")
"""A word is what spaces separate; where Chinese and Japanese write none, a character."""
_SPARE = ((0, 0), (1, 0), (0, 1), (1, 1))
"""Words that give way at the end of the left and at the beginning of the right, in the order of trying."""


@dataclass(frozen=True)
class _Word:
    start: int
    stop: int
    heard: str


def without_overlap(left: str, right: str, most_words: int) -> tuple[str, str]:
    """`left` and `right` without the words that both have, which are at most `most_words` at the seam.

    Each side's last word towards the cut may be half a word and give way. Where nothing agrees, nothing is dropped.
    """
    before, after = _words(left), _words(right)
    for length in range(min(len(before), len(after), most_words), 0, -1):
        for spare_left, spare_right in _SPARE:
            stop = len(before) - spare_left
            if length <= spare_left + spare_right or stop < length:
                continue  # too little to say that it is the same place
            if _heard(before[stop - length : stop]) == _heard(after[spare_right : spare_right + length]):
                rest = after[spare_right + length :]
                return left[: before[stop - 1].stop], right[rest[0].start :] if rest else ""
    return left, right


def _heard(words: list[_Word]) -> list[str]:
    return [word.heard for word in words]


def _words(text: str) -> list[_Word]:
    return [_Word(match.start(), match.end(), _plain(match[0])) for match in _WORD.finditer(text)]


def _plain(word: str) -> str:
    """A word without case and the punctuation around it; one of punctuation alone is itself."""
    return re.sub(r"^\W+|\W+$", "", word.casefold()) or word
