"""Source lines in, drawn lines out: paragraphs, lists, quotes, headings, rules, tables, code.

What is given out never changes, so nothing here looks back. This is Markdown as chat models write it, and it differs
from CommonMark where CommonMark lets a later line change an earlier one, or joins what was typed apart:
- A newline inside a paragraph is a line break.
- A line of === or --- under a text makes no heading of it; --- is a rule.
- [name]: address defines nothing; it is shown as typed.
- A table ends at the first line without a bar.
- Blank lines between blocks are shown, as one.
- An emphasis, a link or code that is still open after 1,000 characters is none; its mark is shown.
"""

from __future__ import annotations

import re
from copy import copy

from rich.style import Style

from gemma_mlx.terminal.screen.markdown.code_lines import CodeLines
from gemma_mlx.terminal.screen.markdown.containers import Container, Found, Item, Quote, prefix, read_line
from gemma_mlx.terminal.screen.markdown.inline import inline
from gemma_mlx.terminal.screen.markdown.paragraph import Paragraph
from gemma_mlx.terminal.screen.markdown.styled_text import (
    BOLD,
    DIM,
    PLAIN,
    Line,
    Wrapper,
    ansi,
    chopped,
    line_cells,
    stripped,
)
from gemma_mlx.terminal.screen.markdown.tables import Table, sides

_RULE_CELLS = 60
_FIRST_HEADING = Style(bold=True, underline=True)
_FENCE = re.compile(r"( *)(`{3,}|~{3,}) *([^ `{]*)")
_HEADING = re.compile(r" *(#{1,6})(.*?)(?: #+)? *")
_MATH_ENDS = {"$$": re.compile(r".*\$\$.*| *"), "\\[": re.compile(r".*\\\].*| *")}  # A blank line ends it too.


class Verbatim:
    """Lines shown as typed until the one that ends them: code between fences, mathematics between $$ and $$."""

    def __init__(self, closing: re.Pattern[str], code: CodeLines, indent: int, style: Style) -> None:
        self.closing = closing
        self.code = code
        self.style = style  # Of the lines that begin and end it.
        self.indent = indent  # Spaces taken away from each line that has them, because the opening line had them.
        self.at_start = True  # Of a source line: only there can the end stand.

    def fork(self) -> Verbatim:
        other = copy(self)
        other.code = self.code.fork()
        return other

    def add(self, text: str, ends: bool) -> list[Line]:
        if self.at_start:
            spaces = len(text) - len(text.lstrip(" "))
            text = text[min(spaces, self.indent) :]
        self.at_start = ends
        return self.code.add(text, ends)

    def end(self) -> list[Line]:
        return self.code.end()

    def resize(self, width: int) -> list[Line]:
        self.code.width = width
        return []


Leaf = Paragraph | Verbatim | Table


class Blocks:
    """Draws source lines; what is finished is in `out`, each line with its newline."""

    def __init__(self, width: int, colour: bool) -> None:
        self.out: list[str] = []
        self._width = width
        self._colour = colour
        self._containers: list[Container] = []
        self._leaf: Leaf | None = None
        self._begun = False
        self._blank: Line | None = None  # A blank line that is shown once something comes after it.

    def fork(self) -> Blocks:
        """Blocks in the same state that go their own way."""
        other = copy(self)
        other.out = self.out[:]
        other._containers = [copy(container) for container in self._containers]
        other._leaf = self._leaf.fork() if self._leaf else None
        return other

    def resize(self, width: int) -> None:
        self._width = width
        if self._leaf:
            self._emit(self._leaf.resize(self._inner_width()))

    def line(self, text: str, ends: bool = True) -> None:
        """Takes a source line; with `ends` false it was cut for its length, and what follows goes on with it."""
        found = self._read(text)
        leaf = self._leaf
        if isinstance(leaf, Verbatim) and found.matched == len(self._containers):
            self._add_verbatim(leaf, found.rest, ends)
        elif isinstance(leaf, Table) and self._stays(found) and "|" in found.rest:
            self._emit(leaf.add(found.rest))
        elif not self._begins_table(found):
            self._turn_to(found)
            self._add(found, ends)

    def begin_prose(self, head: str, too_long: bool) -> str | None:
        """Begins a source line that starts with `head`, and gives what of `head` is its text.

        None, and nothing is done, where such a line has to be read whole: it is no prose, or it has a bar and could be
        a row of a table. `too_long`: it is longer than any header of one.
        """
        found = self._read(head)
        if isinstance(self._leaf, Verbatim) or "\t" in head or not self._is_text(found):
            return None
        if "|" in head and (not too_long or isinstance(self._leaf, Table)):
            return None
        self._turn_to(found)
        self._emit(self._paragraph().release())
        return found.rest.lstrip(" ")

    def add_prose(self, text: str) -> None:
        """Takes more of the line that `begin_prose` began: whole words, a newline at its end."""
        self._emit(self._paragraph().add(text))

    def end(self) -> None:
        """Finishes all that is open."""
        self._close_leaf()
        self._close_containers(0)

    def _read(self, line: str) -> Found:
        return read_line(line.expandtabs(4), self._containers, isinstance(self._leaf, Verbatim))

    def _stays(self, found: Found) -> bool:
        """Whether a line goes on in the innermost container."""
        return found.kind == "text" and found.matched == len(self._containers) and not found.opened

    def _is_text(self, found: Found) -> bool:
        return found.kind == "text" or (found.kind == "indented" and self._continues(found))

    def _continues(self, found: Found) -> bool:
        """Whether a line of text goes on with the paragraph before it, even from outside of its list item or quote."""
        return isinstance(self._leaf, Paragraph) and not found.opened and found.kind in ("text", "indented")

    def _begins_table(self, found: Found) -> bool:
        leaf = self._leaf
        if not isinstance(leaf, Paragraph) or leaf.held is None or not self._stays(found):
            return False
        columns = sides(found.rest, leaf.held)
        if columns is None:
            return False
        header, leaf.held = leaf.held, None
        self._close_leaf()
        self._leaf = Table(header, columns, self._inner_width())
        return True

    def _turn_to(self, found: Found) -> None:
        """Leaves what the line does not belong to, and opens the containers that it begins."""
        if self._continues(found):
            return
        self._close_leaf()
        before = self._containers[found.matched :]
        self._close_containers(found.matched)
        if found.opened and before and isinstance(found.opened[0], Item) and isinstance(before[0], Item):
            found.opened[0].follow(before[0])
        self._containers += found.opened

    def _add(self, found: Found, ends: bool) -> None:
        """Takes what a line holds inside of its containers."""
        if found.kind == "blank":
            if not (found.opened and isinstance(found.opened[-1], Item)):
                self._blank = self._blank_line()
        elif self._is_text(found):
            self._add_text(found.rest.strip(" "))
        elif found.kind == "heading":
            self._emit(self._heading(found.rest))
        elif found.kind == "rule":
            self._emit([[("─" * min(_RULE_CELLS, self._inner_width()), DIM)]])
        elif found.kind == "indented":
            self._emit(chopped([(found.rest, PLAIN)], self._inner_width()))
        else:
            self._open_verbatim(found, ends)

    def _add_text(self, text: str) -> None:
        paragraph = self._paragraph()
        self._emit(paragraph.hold(text) if "|" in text else [*paragraph.release(), *paragraph.add(f"{text}\n")])

    def _paragraph(self) -> Paragraph:
        if not isinstance(self._leaf, Paragraph):
            self._leaf = Paragraph(self._inner_width())
        return self._leaf

    def _heading(self, line: str) -> list[Line]:
        found = _HEADING.fullmatch(line)
        signs, title = found.groups() if found else ("", line)
        wrapper = Wrapper(self._inner_width())
        style = _FIRST_HEADING if len(signs) == 1 else BOLD
        return [*wrapper.feed(inline(title.strip(" "), style)), *wrapper.end()]

    def _open_verbatim(self, found: Found, ends: bool) -> None:
        width = self._inner_width()
        line = found.rest.strip(" ")
        fence = _FENCE.match(found.rest)
        if found.kind == "fence" and fence:
            indent, sign, language = fence.groups()
            closing = re.compile(rf" {{0,3}}{sign[0]}{{{len(sign)},}} *")
            leaf = Verbatim(closing, CodeLines(language, width), len(indent), DIM)
        else:
            leaf = Verbatim(_MATH_ENDS[line[:2]], CodeLines("", width), 0, PLAIN)
        leaf.at_start = ends
        self._leaf = leaf
        self._emit(chopped([(line, leaf.style)], width))

    def _add_verbatim(self, leaf: Verbatim, text: str, ends: bool) -> None:
        if leaf.at_start and ends and leaf.closing.fullmatch(text):
            self._leaf = None
            self._emit(chopped([(text.strip(" "), leaf.style)], self._inner_width()))
        else:
            self._emit(leaf.add(text, ends))

    def _close_leaf(self) -> None:
        leaf, self._leaf = self._leaf, None
        if leaf:
            self._emit(leaf.end())

    def _close_containers(self, left: int) -> None:
        """Closes all but the outer `left` ones; an item that had no text is shown as its mark."""
        if any(isinstance(container, Item) and not container.given for container in self._containers[left:]):
            self._emit([[]])
        del self._containers[left:]

    def _inner_width(self) -> int:
        return self._width - line_cells(prefix(self._containers, self._width))

    def _blank_line(self) -> Line:
        """A line with the bars of the quotes that go on."""
        quotes = [i for i, container in enumerate(self._containers) if isinstance(container, Quote)]
        return stripped(prefix(self._containers[: quotes[-1] + 1], self._width, marks=False)) if quotes else []

    def _emit(self, lines: list[Line]) -> None:
        """Gives out `lines`, each after the marks of its containers."""
        for line in lines:
            if self._blank is not None and self._begun:
                self._write(self._blank)
            self._blank, self._begun = None, True
            before = prefix(self._containers, self._width)
            self._write([*before, *line] if line_cells(line) else stripped(before))
            for container in self._containers:
                if isinstance(container, Item):
                    container.given = True

    def _write(self, line: Line) -> None:
        self.out.append(ansi(line, self._colour) + "\n")
