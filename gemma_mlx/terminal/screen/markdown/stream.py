"""Markdown in pieces of any size: what is finished is given once, what is not can be looked at.

The text is read in units that its cutting into pieces cannot change: a source line; of a long line of prose, a word;
of any other long line, so many characters. Each unit is read when it is complete, so what comes out in all is a
function of the whole text alone, and the work for a piece is that of its own units, however long the answer is.
"""

from __future__ import annotations

import re
from copy import copy

from gemma_mlx.terminal.safe import visible
from gemma_mlx.terminal.screen.markdown.blocks import Blocks

_PROSE_FROM_CHARS = 160  # A line of prose is read word by word from here: what it begins shows what it is.
_LONGEST_LINE_CHARS = 1_000  # Any other line is cut here,
_LONGEST_WORD_CHARS = 1_000  # and a word (or many, in a script without spaces) here.

_INSIDE_WORD = re.compile(r"\w(?=\w)")
_WORD_ENDS = re.compile(
    r"\s+(?=\S)"
    r"|(?<=[、。，．！？；：])(?=[^\s!*_~`\[\]<>()&\\$])"  # A mark next to it would mean another thing cut off from it.
)


class MarkdownStream:
    """Draws Markdown that arrives in pieces, for a terminal of `width` columns.

    What `feed` and `finish` give, joined, is the same however the text is cut; each line ends in a newline and takes at
    most `width` cells. No control character of the text is in it, only the SGR sequences of its own colours; with
    `colour` false not even those. No text raises an error.
    """

    def __init__(self, width: int, *, colour: bool = True) -> None:
        self._blocks = Blocks(max(2, width), colour)
        self._rest = ""  # What has come of the unit that is not complete.
        self._return = ""  # A carriage return at the very end: with a newline after it, it is part of that.
        self._in_prose = False  # Whether the rest goes on with a line of prose that is read word by word.
        self._whole = False  # Whether the line is known to be none of these.

    def feed(self, text: str) -> str:
        """The lines that `text` finished."""
        text = (self._return + text).replace("\r\n", "\n")
        self._return = "\r" if text.endswith("\r") else ""
        self._read(self._rest + visible(text.removesuffix("\r")))
        return self._given()

    def tail(self, max_lines: int) -> str:
        """The unfinished rest as it would look if the text ended here: its last lines, no newline after the last."""
        other = copy(self)
        other._blocks = self._blocks.fork()
        lines = other.finish().removesuffix("\n").split("\n")
        return "\n".join(lines[-max_lines:]) if max_lines > 0 else ""

    def finish(self) -> str:
        """The lines that are left. The stream is over."""
        rest = self._rest + visible(self._return)
        if rest:
            self._read(f"{rest}\n")
        self._blocks.end()
        return self._given()

    def resize(self, width: int) -> None:
        """Draws what is not finished yet for a terminal of `width` columns."""
        self._blocks.resize(max(2, width))

    def _given(self) -> str:
        out, self._blocks.out = "".join(self._blocks.out), []
        return out

    def _read(self, text: str) -> None:
        """Reads the complete units of `text`; the rest waits."""
        start = 0
        while (end := self._word(text, start) if self._in_prose else self._line(text, start)) is not None:
            start = end
        self._rest = text[start:]

    def _line(self, text: str, start: int) -> int | None:
        """Reads the line that starts at `start`, or finds that it is long prose; gives where the next unit starts."""
        newline = text.find("\n", start, start + _LONGEST_LINE_CHARS + 1)
        head = start + _PROSE_FROM_CHARS
        if not self._whole and (len(text) if newline < 0 else newline) >= head:
            prose = self._blocks.begin_prose(text[start:head], too_long=False)
            if prose is not None:
                self._in_prose = True
                return head - len(prose)
            self._whole = True
        if newline < 0 and len(text) - start <= _LONGEST_LINE_CHARS:
            return None
        self._whole = False
        if newline < 0:
            end = start + _LONGEST_LINE_CHARS
            prose = self._blocks.begin_prose(text[start:end], too_long=True)
            if prose is not None:
                self._in_prose = True
                return end - len(prose)
            self._blocks.line(text[start:end], ends=False)
            return end
        self._blocks.line(text[start:newline])
        return newline + 1

    def _word(self, text: str, start: int) -> int | None:
        """Reads the word that starts at `start` in a line of prose; gives where the next unit starts."""
        limit = start + _LONGEST_WORD_CHARS + 1
        newline = text.find("\n", start, limit)
        found = _WORD_ENDS.search(text, start + 1, min(len(text), limit) if newline < 0 else newline)
        if found:
            end = found.end()
        elif newline >= 0:
            self._blocks.add_prose(f"{text[start:newline].rstrip()}\n")
            self._in_prose = False
            return newline + 1
        elif len(text) >= limit:
            middle = _INSIDE_WORD.search(text, start + _LONGEST_WORD_CHARS // 2, limit - 1)
            end = middle.end() if middle else limit - 1
        else:
            return None
        self._blocks.add_prose(text[start:end].replace("\t", " "))
        return end
