"""A table: its columns as wide as the window allows, its long cells folded; in a narrow window "label: value" lines.

 Name │ Size          Name: apple
──────┼─────          Size: 3
apple │    3
"""

from __future__ import annotations

import re
from copy import copy
from typing import Literal

from gemma_mlx.terminal.screen.markdown.inline import inline
from gemma_mlx.terminal.screen.markdown.styled_text import BOLD, DIM, PLAIN, Line, Run, Wrapper, line_cells, stripped

Side = Literal["left", "right", "centre"]
Cell = list[Run]

_NARROW_CELLS = 30  # A window under this gets lines instead of columns,
_NARROWEST_COLUMN_CELLS = 6  # and so does a table whose columns would become smaller than this.
_LONGEST_CHARS = 4_000  # A table longer than this is given row by row, in the widths that its first rows asked for.
_BORDER: Run = (" │ ", DIM)

_DELIMITER = re.compile(r" *\|? *:?-+:? *(\| *:?-+:? *)*\|? *")
_BAR = re.compile(r"(?<!\\)\|")


def split_row(line: str) -> list[str]:
    """The cells of a row's source; a bar with a backslash before it belongs to its cell."""
    return [cell.strip().replace("\\|", "|") for cell in _BAR.split(_bare(line))]


def _bare(line: str) -> str:
    line = line.strip().removeprefix("|")
    return line[:-1] if line.endswith("|") and not line.endswith("\\|") else line


def sides(delimiter: str, header: str) -> list[Side] | None:
    """The side that each column leans to, or None where `delimiter` does not make `header` that of a table."""
    if "|" not in delimiter or not _DELIMITER.fullmatch(delimiter):
        return None
    marks = split_row(delimiter)
    return [_side(mark) for mark in marks] if len(marks) == len(split_row(header)) else None


def _side(mark: str) -> Side:
    if mark.endswith(":"):
        return "centre" if mark.startswith(":") else "right"
    return "left"


class Table:
    """The rows of one table; those not yet given out are held, because the next can ask for wider columns."""

    def __init__(self, header: str, columns: list[Side], width: int) -> None:
        self.width = max(2, width)
        self._sides = columns
        self._header = [inline(cell, BOLD) for cell in split_row(header)]
        self._asked = [_asked(cell) for cell in self._header]  # Cells that each column would like to have.
        self._rows: list[list[Cell]] = []
        self._chars = 0
        self._begun = False  # Whether the header has been given out.
        self._fixed: list[int] | None = None

    def fork(self) -> Table:
        other = copy(self)
        other._rows, other._asked = self._rows[:], self._asked[:]
        return other

    def add(self, line: str) -> list[Line]:
        """The lines that are final now: none, until the table has grown long."""
        cells = [inline(cell) for cell in split_row(line)][: len(self._sides)]
        cells += [[] for _ in range(len(self._sides) - len(cells))]
        self._rows.append(cells)
        self._asked = [max(asked, _asked(cell)) for asked, cell in zip(self._asked, cells, strict=True)]
        self._chars += len(line)
        return self.end() if self._chars > _LONGEST_CHARS or self._begun else []

    def resize(self, width: int) -> list[Line]:
        self.width, self._fixed = max(2, width), None
        return []

    def end(self) -> list[Line]:
        """The lines of all rows that are held."""
        columns = self._columns()
        lines: list[Line] = []
        if columns is None:
            for row in self._rows:
                lines += [[]] if self._begun else []
                lines += self._labelled(row)
                self._begun = True
            if not self._begun:
                lines += self._labelled([[] for _ in self._header])
        else:
            if not self._begun:
                lines += self._folded(self._header, columns)
                lines.append([("─┼─".join("─" * cells for cells in columns), DIM)])
            for row in self._rows:
                lines += self._folded(row, columns)
        self._begun, self._rows = True, []
        return lines

    def _columns(self) -> list[int] | None:
        """The cells of each column, or None where they do not fit: a table that is begun keeps its columns."""
        if self._fixed is None or not self._begun:
            self._fixed = self._fitted()
        return self._fixed or None

    def _fitted(self) -> list[int]:
        """The asked widths, the widest made narrower until all fit; [] where that is too narrow to read."""
        room = self.width - len(_BORDER[0]) * (len(self._asked) - 1)
        if sum(self._asked) <= room:
            return self._asked
        if self.width < _NARROW_CELLS or room < _NARROWEST_COLUMN_CELLS * len(self._asked):
            return []
        fitted: dict[int, int] = {}
        for left, (asked, column) in zip(
            range(len(self._asked), 0, -1), sorted((asked, i) for i, asked in enumerate(self._asked)), strict=True
        ):
            fitted[column] = min(asked, room // left)
            room -= fitted[column]
        return [fitted[column] for column in range(len(fitted))]

    def _folded(self, row: list[Cell], columns: list[int]) -> list[Line]:
        """The lines of one row."""
        folded = [_wrapped(cell, cells) for cell, cells in zip(row, columns, strict=True)]
        lines: list[Line] = []
        for number in range(max(len(cell) for cell in folded)):
            line: Line = []
            for cell, cells, side in zip(folded, columns, self._sides, strict=True):
                line += [_BORDER] if line else []
                line += _leaning(cell[number] if number < len(cell) else [], cells, side)
            lines.append(stripped(line))
        return lines

    def _labelled(self, row: list[Cell]) -> list[Line]:
        lines: list[Line] = []
        for label, cell in zip(self._header, row, strict=True):
            lines += _wrapped([*label, (": ", BOLD), *cell], self.width)
        return lines


def _asked(cell: Cell) -> int:
    """The cells of the longest line of `cell`; a column is never without width."""
    return max([1, *(line_cells(line) for line in _wrapped(cell, 1_000))])


def _wrapped(cell: Cell, width: int) -> list[Line]:
    wrapper = Wrapper(width)
    return [*wrapper.feed(cell), *wrapper.end()]


def _leaning(line: Line, width: int, side: Side) -> Line:
    """`line` filled to `width` on the side it does not lean to."""
    room = width - line_cells(line)
    before = {"left": 0, "right": room, "centre": room // 2}[side]
    return [(" " * before, PLAIN), *line, (" " * (room - before), PLAIN)]
