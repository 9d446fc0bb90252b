"""A code block line by line: each line gets its colours when it ends, and they are right across lines.

Pygments colours whole texts. Here its lexer is stopped at the end of each line and goes on from its stack of states.
Some constructs it only sees whole (a C comment is one match from /* to */): so each line is read with a tail that
would close one. Where a token reaches into that tail, the construct is open, and the line that opened it is read
again before the next one; what stands between is not needed.

    /* one      <- kept: the comment it opens reaches over its end
    two         read as "/* one\\ntwo\\n": still open
    three */    read as "/* one\\nthree */\\n": closed, nothing is kept any more
"""

from __future__ import annotations

from collections.abc import Iterator
from copy import copy

from pygments.lexer import ExtendedRegexLexer, Lexer, LexerContext, RegexLexer
from pygments.lexers import get_lexer_by_name
from pygments.util import ClassNotFound
from rich.style import Style
from rich.syntax import ANSI_DARK, ANSISyntaxTheme

from gemma_mlx.terminal.screen.markdown.styled_text import PLAIN, Line, Run, chopped

_CLOSING = "x */ ]] `\n"
_LONGEST_KEPT_CHARS = 4_000
_THEME = ANSISyntaxTheme(ANSI_DARK)  # The terminal's own sixteen colours, no background: right on light and on dark.


class CodeLines:
    """The lines of one code block, coloured for its language and cut to `width` cells."""

    def __init__(self, language: str, width: int) -> None:
        self.width = max(2, width)
        self._lexer = _lexer(language)
        self._stack: list[str] = ["root"]
        self._kept = ""  # The line, with its newline, that opened what is still open.
        self._row: Line = []  # The last row of a line that goes on.

    def fork(self) -> CodeLines:
        return copy(self)  # Nothing in it is changed in place.

    def add(self, text: str, ends: bool) -> list[Line]:
        """The finished rows of `text`; where the line does not end with it, its last row waits."""
        *rows, last = chopped([*self._row, *self._coloured(text)], self.width)
        self._row = [] if ends else last
        return [*rows, last] if ends else rows

    def end(self) -> list[Line]:
        """The row that still waits."""
        row, self._row = self._row, []
        return [row] if row else []

    def _coloured(self, text: str) -> list[Run]:
        if self._lexer is None or not text:
            return [(text, PLAIN)]
        try:
            return list(self._lexed(self._lexer, text))
        except Exception:  # Lexers are many and get any text: the one that fails colours no more of this block.
            self._lexer = None
            return [(text, PLAIN)]

    def _lexed(self, lexer: Lexer, text: str) -> Iterator[Run]:
        if not isinstance(lexer, RegexLexer) or isinstance(lexer, ExtendedRegexLexer):
            for kind, value in lexer.get_tokens(text):  # Its state cannot be kept: each line for itself.
                if shown := value.rstrip("\n"):
                    yield shown, _style(kind)
            return
        start = len(self._kept)
        source = f"{self._kept}{text}\n"
        state = LexerContext(source + _CLOSING, 0, list(self._stack))
        at_line: list[str] | None = None
        open_from: int | None = None
        for position, kind, value in ExtendedRegexLexer.get_tokens_unprocessed(lexer, context=state):
            if position >= len(source):
                self._stack, self._kept, open_from = list(state.stack), "", None
                break
            if position == start:
                at_line = list(state.stack)
            open_from = position
            if shown := value[max(0, start - position) : len(source) - 1 - position]:
                yield shown, _style(kind)
            if position + len(value) > len(source):
                break
        if open_from is not None:
            self._keep_open(open_from, start, f"{text}\n", at_line)

    def _keep_open(self, open_from: int, start: int, line: str, at_line: list[str] | None) -> None:
        """Keeps what is needed to read the next line, where a token that begins at `open_from` is open."""
        if open_from < start:
            return  # Opened by the line that is kept already.
        if at_line is not None:
            self._stack, self._kept = at_line, line
        else:  # The line ended one such construct and opened the next.
            self._kept += line
        if len(self._kept) > _LONGEST_KEPT_CHARS:
            self._stack, self._kept = ["root"], ""


def _lexer(language: str) -> Lexer | None:
    try:
        return get_lexer_by_name(language, stripnl=False, ensurenl=False) if language else None
    except ClassNotFound:
        return None


def _style(kind: object) -> Style:
    return _THEME.get_style_for_token(kind)  # type: ignore[arg-type]
