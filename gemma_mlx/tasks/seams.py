"""Two transcripts of overlapping sound -> one: words that both heard are written once.

Where a sound was cut between two pauses, both sides hear a little of the other. Each may get the word at its own edge
wrong, for it hears half of it, and any word otherwise than the other side:

    left     the ten dollar bill he fou
    right           dollars bill he found to her
    joined   the ten dollar bill he found to her

The seam is where most agrees. A word in common counts 1. The last word of the left and the first of the right may be
halves, and take away 0.5 if they are dropped; any other word that is heard differently, or by one side only, takes away
2. At least 1 must be left: words that somebody repeats are not to be lost. Here it is "bill he" with 2, less 0.5 for
"fou" and 0.5 for "dollars". How much is lost and said twice: seams in `benchmarks/results`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

_WORD = re.compile(r"[\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff]|[^\s\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff]+")
"""A word is what spaces separate; where Chinese and Japanese write none, a character."""
_HALF_WORD, _OTHER_WORD = 0.5, 2.0
_LEAST = 1.0


@dataclass(frozen=True)
class _Word:
    start: int
    stop: int
    heard: str


def without_overlap(left: str, right: str, most_words: int) -> tuple[str, str]:
    """`left` and `right` without the words that both have, which are at most `most_words` at the seam.

    Words beyond the last one in common give way to the other side's. Where too little agrees, nothing is dropped.
    """
    before, after = _words(left), _words(right)
    first = max(0, len(before) - most_words)
    seam = _seam([word.heard for word in before[first:]], [word.heard for word in after[:most_words]])
    if seam is None:
        return left, right
    rest = after[seam[1] :]
    return left[: before[first + seam[0] - 1].stop], right[rest[0].start :] if rest else ""


def _seam(left: list[str], right: list[str]) -> tuple[int, int] | None:
    """How many words of `left` stay and how many of `right` go, up to the last one in common; None if too few are.

    The usual table of alignments, but that what both have may begin behind any word of `left`. Of two that are as good,
    it is the one that drops less.
    """
    found: tuple[float, int, int, int] | None = None
    above = [-_dropped(count) for count in range(len(right) + 1)]
    for stay, word in enumerate(left, start=1):
        row = [0.0]
        for go, other in enumerate(right, start=1):
            both = above[go - 1] + (1 if word == other else -_OTHER_WORD)
            row.append(max(both, above[go] - _OTHER_WORD, row[-1] - _OTHER_WORD, -_dropped(go)))
            score = both - _dropped(len(left) - stay)
            if word == other and score >= _LEAST:
                one = (score, stay - go, stay, go)
                found = one if found is None else max(found, one)
        above = row
    return found[2:] if found else None


def _dropped(words: int) -> float:
    """What so many words at an edge take away."""
    return _HALF_WORD + _OTHER_WORD * (words - 1) if words else 0.0


def _words(text: str) -> list[_Word]:
    return [_Word(match.start(), match.end(), _plain(match[0])) for match in _WORD.finditer(text)]


def _plain(word: str) -> str:
    """A word without case and the punctuation around it; one of punctuation alone is itself."""
    return re.sub(r"^\W+|\W+$", "", word.casefold()) or word
