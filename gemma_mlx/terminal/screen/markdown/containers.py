"""What stands around a paragraph: quotes and list items, and what a source line says about them."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from gemma_mlx.terminal.screen.markdown.styled_text import DIM, PLAIN, Line, cells, line_cells

Kind = Literal["blank", "text", "fence", "heading", "rule", "math", "indented"]

_DEEPEST = 10  # Containers in each other; what goes deeper is text.

_QUOTE = re.compile(r" {0,3}> ?")
_ITEM = re.compile(r"( *)(?:([-+*])|(\d{1,9})([.)]))( +|$)")
_TASK = re.compile(r"\[([ xX])\] ")
_RULE = re.compile(r" {0,3}([-*_])(?: *\1){2,} *")
_FENCE = re.compile(r" {0,3}(?:`{3,}[^`]*|~{3,}.*)")
_HEADING = re.compile(r" {0,3}#{1,6}(?: |$)")
_MATH = re.compile(r" {0,3}(?:\$\$(?!.*\$\$)|\\\[(?!.*\\\]))")


@dataclass
class Quote:
    """A quote: a bar before each of its lines."""

    def inside(self, line: str) -> str | None:
        """What `line` holds inside of it; None where it does not go on."""
        mark = _QUOTE.match(line)
        return line[mark.end() :] if mark else None


@dataclass
class Item:
    """A list item: its mark before its first line, as many spaces before the others.

    Its lines are indented by at least two more than its mark, also under "10. ": models count like that.
    """

    mark_column: int
    content_column: int
    sign: str  # What tells its list from another: the bullet, or what follows the number.
    mark: str  # As shown, with the space after it.
    typed: int = 0  # The number in the source.
    shown: int = 0
    first_typed: int = 0  # The number that its list began with.
    given: bool = False  # Whether the mark has been given out.

    def inside(self, line: str) -> str | None:
        if not line.strip(" "):
            return ""
        spaces = len(line) - len(line.lstrip(" "))
        return line[min(spaces, self.content_column) :] if spaces >= self.mark_column + 2 else None

    def follow(self, before: Item) -> None:
        """Counts on from the item before it. A list that repeats its first number (1. 1. 1.) is counted."""
        if not self.sign or self.sign != before.sign or self.sign in "-+*":
            return
        self.first_typed = before.first_typed
        if self.typed == self.first_typed:
            self.shown = before.shown + 1
            self.mark = self.mark.replace(str(self.typed), str(self.shown), 1)


Container = Quote | Item


@dataclass(frozen=True)
class Found:
    """What a source line is: it goes on `matched` of the open containers, opens `opened`, and holds `rest`."""

    matched: int
    opened: tuple[Container, ...]
    kind: Kind
    rest: str


def read_line(line: str, containers: list[Container], verbatim: bool) -> Found:
    """Reads a source line without tabs.

    `verbatim`: the innermost container holds code between fences. Marks mean nothing there, and a list item goes on
    for lines that are not indented too: models forget to.
    """
    matched = 0
    rest = line
    for container in containers:
        inside = container.inside(rest)
        if inside is None and verbatim and isinstance(container, Item):
            inside = rest.lstrip(" ") if len(rest) - len(rest.lstrip(" ")) < container.content_column else rest
        if inside is None:
            break
        rest = inside
        matched += 1
    if verbatim and matched == len(containers):
        return Found(matched, (), "text", rest)
    opened: list[Container] = []
    listed = any(isinstance(container, Item) for container in containers[:matched])
    while matched + len(opened) < _DEEPEST:
        found = _opens(rest, listed)
        if found is None:
            break
        container, rest = found
        opened.append(container)
        listed = listed or isinstance(container, Item)
    return Found(matched, tuple(opened), _kind(rest), rest)


def _opens(line: str, listed: bool) -> tuple[Container, str] | None:
    quote = _QUOTE.match(line)
    if quote:
        return Quote(), line[quote.end() :]
    item = _ITEM.match(line)
    if not item or _RULE.fullmatch(line):
        return None
    before, bullet, number, dot, spaces = item.groups()
    if len(before) > 3 and not listed:  # Code; in a list it is an item that was indented too far.
        return None
    content = item.end() if len(spaces) <= 4 else item.end() - len(spaces) + 1
    rest = line[content:]
    mark = "• "
    task = _TASK.match(rest) if bullet else None
    if task:
        mark, rest = ("☐ " if task[1] == " " else "☑ "), rest[task.end() :]
    typed = int(number) if number else 0
    sign = bullet or dot
    mark = f"{number}{dot} " if number else mark
    return Item(len(before), max(content, item.end(4 if number else 2) + 1), sign, mark, typed, typed, typed), rest


def _kind(rest: str) -> Kind:
    if not rest.strip(" "):
        return "blank"
    if rest.startswith("    "):
        return "indented"
    if _RULE.fullmatch(rest):
        return "rule"
    if _FENCE.fullmatch(rest):
        return "fence"
    if _HEADING.match(rest):
        return "heading"
    return "math" if _MATH.match(rest) else "text"


def prefix(containers: list[Container], width: int, marks: bool = True) -> Line:
    """What stands before a line inside of `containers`, at most half of `width`; without `marks`, spaces for those."""
    line: Line = []
    for container in containers:
        if isinstance(container, Quote):
            line.append(("│ ", DIM))
        elif container.given or not marks:
            line.append((" " * cells(container.mark), PLAIN))
        else:
            line.append((container.mark, PLAIN))
    while line and line_cells(line) > width // 2:
        del line[0]
    return line
