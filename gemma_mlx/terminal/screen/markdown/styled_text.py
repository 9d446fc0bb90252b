"""Lines of styled text: measured in cells of the terminal, wrapped word by word, written as ANSI.

A run is a text in one style; a line is a list of runs without a newline. The wrapper takes text as it comes and gives
each line when no later word can change it: a greedy wrap never looks back over the line before.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from copy import copy

from rich.color import ColorSystem
from rich.style import Style
from wcwidth import iter_graphemes, wcswidth

Run = tuple[str, Style]
Line = list[Run]

PLAIN = Style.null()
BOLD = Style(bold=True)
DIM = Style(dim=True)

_LONGEST_WORD_CHARS = 4_000  # Of marks without width, which never fill a line.
_PIECES = re.compile(r"\n| +|[^ \n]+")
_NOT_FIRST = frozenset("、。，．！？；：）」』】〕〉》”’ー…・%％")  # These stay with the wide character before them.


def cells(text: str) -> int:
    """How many cells of a terminal's line `text` takes."""
    return len(text) if text.isascii() else max(0, wcswidth(text))


def line_cells(line: Line) -> int:
    return sum(cells(text) for text, _ in line)


def ansi(line: Line, colour: bool) -> str:
    """The line with the SGR sequences of its styles, each closed; without colour, its bare text."""
    if not colour:
        return "".join(text for text, _ in line)
    return "".join(style.render(text, color_system=ColorSystem.STANDARD) for text, style in _merged(line))


def _merged(line: Line) -> Iterator[Run]:
    text, style = "", PLAIN
    for more, its_style in line:
        if its_style == style:
            text += more
        else:
            yield text, style
            text, style = more, its_style
    yield text, style


def stripped(line: Line) -> Line:
    """`line` without the spaces at its end."""
    while line and not (line[-1][0].rstrip(" ")):
        line = line[:-1]
    return [*line[:-1], (line[-1][0].rstrip(" "), line[-1][1])] if line else []


def chopped(line: Line, width: int) -> list[Line]:
    """`line` in rows of at most `width` cells, cut between graphemes wherever a row is full; every character kept."""
    if line_cells(line) <= width:
        return [line]
    rows: list[Line] = [[]]
    used = 0
    for text, style in line:
        start = at = 0
        for grapheme in iter_graphemes(text):
            size = cells(grapheme)
            if used + size > width and used:
                rows[-1].append((text[start:at], style))
                rows.append([])
                start, used = at, 0
            used += size
            at += len(grapheme)
        rows[-1].append((text[start:], style))
    return rows


class Wrapper:
    """Wraps text that arrives run by run at `width` cells."""

    def __init__(self, width: int) -> None:
        self.width = max(2, width)
        self._line: Line = []
        self._line_cells = 0
        self._space: Run | None = None  # Between the line and the word; it is dropped where the line breaks.
        self._word: Line = []
        self._word_cells = 0

    def fork(self) -> Wrapper:
        """A wrapper in the same state, which goes its own way."""
        other = copy(self)
        other._line, other._word = self._line[:], self._word[:]
        return other

    def rest(self) -> Line:
        """What has come and is in no finished line yet."""
        return [*self._line, *([self._space] if self._space else []), *self._word]

    def feed(self, runs: Iterable[Run]) -> list[Line]:
        """The lines that `runs` finished. A newline ends a line."""
        done: list[Line] = []
        for text, style in runs:
            for piece in _PIECES.findall(text):
                if piece == "\n":
                    done.append(self._end_line(done))
                elif piece[0] == " ":
                    self._place(done)
                    self._space = (piece, style)
                elif piece.isascii():
                    self._grow(piece, len(piece), style, done)
                else:
                    self._grow_wide(piece, style, done)
        return done

    def end(self) -> list[Line]:
        """The last line, if anything stands on it."""
        done: list[Line] = []
        last = self._end_line(done)
        return [*done, last] if last else done

    def _end_line(self, done: list[Line]) -> Line:
        self._place(done)
        line, self._line, self._line_cells, self._space = self._line, [], 0, None
        return line

    def _grow_wide(self, piece: str, style: Style, done: list[Line]) -> None:
        """A word with characters outside of ASCII: the line may break on both sides of a wide one (日|本|語)."""
        for grapheme in iter_graphemes(piece):
            size = cells(grapheme)
            wide = size == 2 and grapheme not in _NOT_FIRST
            if wide or (self._word and self._ends_wide() and grapheme not in _NOT_FIRST):
                self._place(done)
            self._grow(grapheme, size, style, done)

    def _ends_wide(self) -> bool:
        last = self._word[-1][0]
        return not last.isascii() and cells(last) == 2

    def _grow(self, text: str, size: int, style: Style, done: list[Line]) -> None:
        self._word.append((text, style))
        self._word_cells += size
        if self._word_cells <= self.width and len(self._word) < _LONGEST_WORD_CHARS:
            return
        if self._line:  # A word wider than a whole line starts on a line of its own, and fills lines.
            done.append(self._line)
            self._line, self._line_cells = [], 0
        self._space = None
        *full, self._word = chopped(self._word, self.width)
        if len(self._word) >= _LONGEST_WORD_CHARS:
            full, self._word = [*full, self._word], []
        done += full
        self._word_cells = line_cells(self._word)

    def _place(self, done: list[Line]) -> None:
        """Puts the finished word on the line, or on the next one."""
        if not self._word:
            return
        space = self._space if self._line else None
        space_cells = len(space[0]) if space else 0
        if self._line and self._line_cells + space_cells + self._word_cells > self.width:
            done.append(self._line)
            self._line, self._line_cells, space, space_cells = [], 0, None, 0
        if space:
            self._line.append(space)
        self._line += self._word
        self._line_cells += space_cells + self._word_cells
        self._space, self._word, self._word_cells = None, [], 0
