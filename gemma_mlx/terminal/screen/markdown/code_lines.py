"""A code block line by line: each line gets its colours when it ends, and they are right across lines.

Pygments colours whole texts. Here its lexer is stopped before the newline of each line, and goes on from its state.
Some constructs it only sees whole (a C comment is one match from /* to */): so each line is read with a tail that
would close one. Where a token reaches into that tail, the construct is open, and the line that opened it is read
again before the next one; what stands between is not needed.

    /* one      <- kept: the comment it opens reaches over its end
    two         read as "/* one\\ntwo": still open
    three */    read as "/* one\\nthree */": closed, nothing is kept any more

What only a later line decides is not known here: that `f (x)` above a `{` is a function in C. So it is with the
"here documents" of PHP and Ruby; those of shells are right.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from copy import copy, deepcopy

from pygments.lexer import ExtendedRegexLexer, Lexer, LexerContext, RegexLexer
from pygments.lexers import get_lexer_by_name
from pygments.lexers.data import YamlLexer, YamlLexerContext
from pygments.token import Error
from pygments.util import ClassNotFound
from rich.style import Style
from rich.syntax import ANSI_DARK, ANSISyntaxTheme

from gemma_mlx.terminal.screen.markdown.styled_text import PLAIN, Line, Run, chopped

_CLOSING = "x */ --> ]] ` ' \"\n=cut\n=end\n</script></style>\n"
_HEREDOC = re.compile(r"<<[-~<]?\s*['\"]?(\w+)")  # It ends at its own word, so that is in the tail too.
_LONGEST_KEPT_CHARS = 4_000
_LOOK_BACK_CHARS = 100
# The terminal's own sixteen colours, without a background: right on light and on dark.
# What a lexer does not understand is no error of the text: it is not marked.
_THEME = ANSISyntaxTheme({**ANSI_DARK, Error: Style()})


class CodeLines:
    """The lines of one code block, coloured for its language and cut to `width` cells."""

    def __init__(self, language: str, width: int) -> None:
        self.width = width
        self._lexer = _lexer(language)
        self._state = YamlLexerContext("", 0) if isinstance(self._lexer, YamlLexer) else LexerContext("", 0)
        self._kept = ""  # The line that opened what is still open; `_state` is that before it.
        self._before = ""  # What stood just before that, for patterns that look back.
        self._newline = ""  # Before the next line: none before the first.
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
        if self._lexer is None:
            return [(text, PLAIN)]
        try:
            runs = list(self._lexed(self._lexer, text))
        except Exception:  # Lexers are many and get any text: the one that fails colours no more of this block.
            self._lexer = None
            return [(text, PLAIN)]
        whole = "".join(shown for shown, _ in runs) == text  # Some drop what they have no name for.
        return runs if whole else [(text, PLAIN)]

    def _lexed(self, lexer: Lexer, text: str) -> Iterator[Run]:
        if not isinstance(lexer, RegexLexer):  # It gives no state to go on from: each line for itself.
            for kind, value in lexer.get_tokens(text):
                yield value.rstrip("\n"), _THEME.get_style_for_token(kind)
            return
        source = f"{self._before}{self._kept}{self._newline}{text}"
        start = len(self._before) + len(self._kept)
        shown_from = len(source) - len(text)
        marks = _HEREDOC.findall(source, len(self._before)) if "<<" in source else []
        state = _at(self._state, source + "\n".join(["", "", *marks, _CLOSING]), len(self._before))
        line_begins: tuple[int, LexerContext] | None = None  # Where the first token of the line starts.
        newline = "\n"
        for position, kind, value in ExtendedRegexLexer.get_tokens_unprocessed(lexer, context=state):
            if start <= position <= shown_from and line_begins is None:
                line_begins = position, _at(state)
            if position >= len(source):
                self._go_on_from(_at(state), source, position)
                break
            yield value[max(0, shown_from - position) : len(source) - position], _THEME.get_style_for_token(kind)
            if position + len(value) > len(source):  # It goes on after this line, and began
                if position < start:  # in the line that is kept: an empty line stands for those between.
                    newline = "\n\n"
                elif line_begins:  # in this one,
                    self._go_on_from(line_begins[1], source, line_begins[0])
                else:  # and the one that is kept reaches into this one too.
                    self._go_on_from(self._state, source, len(self._before))
                break
        self._newline = newline

    def _go_on_from(self, state: LexerContext, source: str, position: int) -> None:
        """Reads the next line after what `source` has from `position` on, where the lexer was in `state`."""
        self._state, self._kept = state, source[position:]
        self._before = source[max(0, position - _LOOK_BACK_CHARS) : position]
        if len(self._kept) > _LONGEST_KEPT_CHARS:
            self._state, self._kept = LexerContext("", 0), ""


def _at(state: LexerContext, text: str = "", position: int = 0) -> LexerContext:
    """A copy of `state`, at a position of `text`."""
    state = deepcopy(state, {id(state.text): ""})
    state.text, state.pos, state.end = text, position, len(text)
    return state


def _lexer(language: str) -> Lexer | None:
    try:
        return get_lexer_by_name(language, stripnl=False, ensurenl=False) if language else None
    except ClassNotFound:
        return None
