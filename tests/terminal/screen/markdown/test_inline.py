"""Marks inside a paragraph, also where it is given word by word."""

from __future__ import annotations

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from gemma_mlx.terminal.screen.markdown.inline import inline
from gemma_mlx.terminal.screen.markdown.paragraph import Paragraph
from gemma_mlx.terminal.screen.markdown.styled_text import Wrapper, ansi
from tests.terminal.screen.markdown.drawing import SGR, draw


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("**a** _b_ ~~c~~ `d` a_b_c 2 * 3 * 4", "a b c d a_b_c 2 * 3 * 4"),
        ("[a](http://b.c/d 'title')", "a (http://b.c/d)"),
        ("[http://b.c](http://b.c) <http://b.c> <a@b.c>", "http://b.c http://b.c a@b.c"),
        ("[**a**](b) [](c) [d]", "a (b) c [d]"),
        ("[a](javascript:b)", "[a](javascript:b)"),
        ("![a *cat*](c.png) ![](d.png)", "a cat d.png"),
        ("![a\nb](c)", "a b"),
        ("$a_1 * b_2 * c$ and \\(x * y * z\\) and $$p_a q_b$$", "$a_1 * b_2 * c$ and \\(x * y * z\\) and $$p_a q_b$$"),
        ("$5 *and* $6 \\$7 \\*x\\*", "$5 and $6 $7 *x*"),
        ("a<br>b<BR />c <i>d</i>", "a\nb\nc <i>d</i>"),
        ("&amp; &lt;b&gt; &#65;", "& <b> A"),
        ("**two\nlines** and `code", "two\nlines and `code"),
        ("a\\\nb  \nc", "a\nb\nc"),
    ],
)
def test_shown(text: str, shown: str) -> None:
    assert draw(text, 100) == shown + "\n"


def test_styles() -> None:
    coloured = draw("**b** *i* ***bi*** `c` ~~s~~", colour=True)
    for sequence, text in [("1", "b"), ("3", "i"), ("1;3", "bi"), ("36", "c"), ("9", "s")]:
        assert f"\x1b[{sequence}m{text}\x1b[0m" in coloured


@pytest.mark.parametrize(
    "text",
    [
        "&#27;]0;title&#7;",
        "&#x9b;31m",
        "&#x202e;abc",
        "`\x1b[31m`",
        "[a](http://b\x1b]8;;c\x1b\\ 'ti\x07tle')",
        "[a](<http://b&#27;c>)",
        "<http://a\x9bb>",
        "![\x1bPq\x1b\\](x&#x9b;)",
        "| a\x1b[2J |\n|---|\n| &#27;c |\n",
        "```\x1b]52;c;QUJD\x07\n\x9b2J\n```",
        "# \x1b[2J &#13;",
        "- [ ] \x7f\x08\x08",
        "$\x1b$ \\(\x9b\\)",
    ],
)
@pytest.mark.parametrize("pieces", [[1], [1_000]])
def test_nothing_that_a_terminal_obeys_gets_out(text: str, pieces: list[int]) -> None:
    bare = SGR.sub("", draw(text + " end\n", colour=True, pieces=pieces))
    assert not [c for c in bare if c != "\n" and (c < " " or "\x7f" <= c <= "\x9f" or c in "\u202e\u2066")], bare
    assert "end" in bare or "```" in text


_PARTS = [
    "a",
    "b,",
    "*",
    "**",
    "_",
    "`",
    "``",
    "~~",
    "[",
    "]",
    "](",
    ")",
    "(c)",
    "\\",
    "$",
    "!",
    " ",
    " ",
    " ",
    "\n",
    "&amp;",
]


@given(st.lists(st.sampled_from(_PARTS), max_size=60).map("".join))
@example("$a *b c* d$ \\(a *b c* d\\)")
@example("[a *b* c](d 'e f')")
@settings(max_examples=600, deadline=None)
def test_word_by_word_is_as_whole(text: str) -> None:
    text = "\n".join(" ".join(line.split()) for line in text.split("\n") if line.strip())
    whole = Wrapper(30)
    expected = [*whole.feed(inline(f"{text}\n")), *whole.end()]
    paragraph = Paragraph(30)
    lines = []
    for line in text.split("\n"):
        *words, last = line.split(" ")
        for word in words:
            lines += paragraph.add(f"{word} ")
        lines += paragraph.add(f"{last}\n")
    lines += paragraph.end()
    assert [ansi(line, True) for line in lines] == [ansi(line, True) for line in expected]
