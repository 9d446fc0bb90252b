"""A transcript that goes round in circles, noticed while it is written.

Models that transcribe sometimes say the same token or phrase until they are stopped. People repeat themselves, too:
"no no no", a refrain, a telephone number full of zeros. What tells them apart is how often, for how long a phrase, and
whether anybody could have said it in the time. So the end of the text is a loop where the same run of characters stands

    run of            1    2-5   6-12   13-30   31 and more characters
    at least         32     16     10       6        4          times in a row, or
    at least          8      6      4       3        3          times, when the text is longer than the sound can hold

Case and white space do not count, and punctuation only where there is nothing else. One character is a sigh ("aaah"),
two to five are a digit or a short word with its space, up to twelve a couple of words, and so on.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

_FEWEST = ((1, 32, 8), (5, 16, 6), (12, 10, 4), (30, 6, 3))
_FEWEST_OF_LONG = (4, 3)
MOST_CHARACTERS_PER_S = 30
"""Nobody says more: quick speech in English has about 20, spaces included."""
_SPARE_CHARACTERS = 20
_MARKS = re.compile(r"[^\w\s]+")
_LONGEST_RUN = 400
_MOST_LOOKED_AT = 4 * _LONGEST_RUN + 1


@dataclass(frozen=True)
class Loop:
    """`text[:kept]` ends with the first time that `run` is said; all after it is the same again."""

    kept: int
    run: str
    times: int


class LoopWatch:
    """Push the text as it comes; it says when the end of it is a loop."""

    def __init__(self, sound_s: float | None = None) -> None:
        """`sound_s` is how long the sound is that is transcribed, if there is one."""
        self._most_characters = None if sound_s is None else sound_s * MOST_CHARACTERS_PER_S + _SPARE_CHARACTERS
        self._text = ""
        self._plain: list[str] = []
        self._places: list[int] = []  # of each plain character, in the text

    def push(self, piece: str) -> Loop | None:
        for place, character in enumerate(piece, start=len(self._text)):
            folded = _folded(character, after=self._plain[-1] if self._plain else " ")
            if folded:
                self._plain.append(folded)
                self._places.append(place)
        self._text += piece
        too_long = self._most_characters is not None and len(self._text) > self._most_characters
        if loop := self._loop_in(self._plain, self._places, too_long):
            marks = _MARKS.match(self._text, loop.kept)
            return replace(loop, kept=marks.end()) if marks else loop
        return self._loop_of_marks(too_long)

    def _loop_in(self, plain: list[str], places: list[int], too_long: bool) -> Loop | None:
        tail = plain[-_MOST_LOOKED_AT:]
        for length, repeated in _endings(tail):
            times = 1 + repeated // length
            if times >= _fewest(length)[too_long]:
                start = len(plain) - length - repeated
                run = "".join(plain[start : start + length])
                if run.strip():
                    return Loop(places[start + length - 1] + 1, run, times)
        return None

    def _loop_of_marks(self, too_long: bool) -> Loop | None:
        """A loop of punctuation alone, which `_folded` takes out."""
        tail = self._text[-_MOST_LOOKED_AT:]
        if len(tail) < _fewest(1)[True] or any(character.isalnum() for character in tail[-_fewest(1)[True] :]):
            return None
        offset = len(self._text) - len(tail)
        return self._loop_in(list(tail), list(range(offset, len(self._text))), too_long)


def _fewest(length: int) -> tuple[int, int]:
    """How many times a run of so many characters makes a loop; and where the text is too long for the sound."""
    return next((fewest[1:] for fewest in _FEWEST if length <= fewest[0]), _FEWEST_OF_LONG)


def _folded(character: str, after: str) -> str:
    """The character as it counts, "" if it does not: one space for any run of spaces and marks."""
    if character.isalnum():
        return character.casefold()
    return " " if (character.isspace() or after != " ") and after != " " else ""


def _endings(text: list[str]) -> list[tuple[int, int]]:
    """(length, how far it is repeated before that) of each run that `text` ends with, where it is at least once.

    The Z function of the reversed text: how much of it, from each place on, is as at its beginning. Linear time.
    """
    turned = text[::-1]
    agree = [0] * len(turned)
    left = right = 0
    found = []
    for place in range(1, min(len(turned), _LONGEST_RUN + 1)):
        length = min(right - place, agree[place - left]) if place < right else 0
        while place + length < len(turned) and turned[length] == turned[place + length]:
            length += 1
        agree[place] = length
        if place + length > right:
            left, right = place, place + length
        if length >= place:
            found.append((place, length))
    return found
