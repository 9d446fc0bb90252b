"""A paragraph that grows word by word, and gives each of its lines as soon as no later word can change it.

Text waits (as `_raw`) while a mark in it is open, because the word that closes it decides how all of it is drawn:

    It is **very      waits: this is bold only if ** comes again
    It is **very** s  given to the wrapper, which gives the line once the next one has begun
"""

from __future__ import annotations

from copy import copy

from gemma_mlx.terminal.screen.markdown.inline import MARKS, closed_inline, inline
from gemma_mlx.terminal.screen.markdown.styled_text import Line, Wrapper

LONGEST_OPEN_CHARS = 1_000  # A mark that is still open then is none.
_SHORT_CHARS = 200  # Over this, text that waits is not read again for each word, only once it has grown by a quarter.


class Paragraph:
    """Text between two blank lines; each source line of it ends in a newline."""

    def __init__(self, width: int) -> None:
        self._wrapper = Wrapper(width)
        self._raw = ""
        self._next_try_chars = 0
        self.held: str | None = None  # Its last line, while the next one could make that the header of a table.

    def fork(self) -> Paragraph:
        other = copy(self)
        other._wrapper = self._wrapper.fork()
        return other

    def add(self, text: str) -> list[Line]:
        """The lines that `text`, which ends where a word ends, finished."""
        self._raw += text
        if not MARKS.search(self._raw):
            return self._commit(self._raw)
        if len(self._raw) > LONGEST_OPEN_CHARS:
            return self._commit(self._raw)
        if len(self._raw) < self._next_try_chars or not (MARKS.search(text) or text.endswith("\n")):
            return []
        runs = closed_inline(self._raw)
        if runs is None:
            self._next_try_chars = len(self._raw) * 5 // 4 if len(self._raw) > _SHORT_CHARS else 0
            return []
        self._raw, self._next_try_chars = "", 0
        return self._wrapper.feed(runs)

    def _commit(self, raw: str) -> list[Line]:
        self._raw, self._next_try_chars = "", 0
        return self._wrapper.feed(inline(raw))

    def hold(self, line: str) -> list[Line]:
        """Holds `line` back, and gives what that finishes: the line held before it is one of the paragraph."""
        done = self.release()
        self.held = line
        return done

    def release(self) -> list[Line]:
        held, self.held = self.held, None
        return [] if held is None else self.add(f"{held}\n")

    def end(self) -> list[Line]:
        """All lines that are left."""
        return [*self.release(), *self._commit(self._raw), *self._wrapper.end()]

    def resize(self, width: int) -> list[Line]:
        """The lines that a new width finishes."""
        rest = self._wrapper.rest()
        self._wrapper = Wrapper(width)
        return self._wrapper.feed(rest)
