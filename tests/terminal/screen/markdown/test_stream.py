"""Whatever the text and however it is cut: the same lines, none too wide, no control byte, no error."""

from __future__ import annotations

import unicodedata
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from wcwidth import wcswidth

from gemma_mlx.terminal.screen.markdown import MarkdownStream, inline
from gemma_mlx.terminal.screen.markdown.code_lines import CodeLines
from gemma_mlx.terminal.screen.markdown.styled_text import Wrapper
from tests.terminal.screen.markdown.drawing import SGR, draw

_WORDS = [
    *(
        "a",
        "word",
        "**",
        "*",
        "_",
        "`",
        "```",
        "~~~",
        "~~",
        "[",
        "](",
        "]",
        ")",
        "![",
        "<http://a.b>",
        "|",
        "|-|-|",
        "$",
    ),
    *("\\", "\\(", "\\)", "\\[", "&#27;", "&amp;", "<br>", "#", ">", "- ", "1. ", "10) ", "- [x] ", "---", "===", "$$"),
    *(
        "\n",
        "\n",
        "\n\n",
        " ",
        " ",
        "  ",
        "    ",
        "\t",
        "\r",
        "\r\n",
        "日本",
        "。",
        "👨‍👩‍👧",
        "é",
        "\u202e",
        "\x1b]0;x\x07",
    ),
    *(
        "python\n",
        "def f():",
        '"""',
        "/*",
        "*/",
        "x" * 170,
        "y" * 1100,
        "a b " * 60,
        "\ud800",
        "\x00",
        "\u2028",
        "\x85",
    ),
]
MARKDOWN = st.lists(st.sampled_from(_WORDS), max_size=40).map("".join)
ANY_TEXT = st.text(st.characters(codec=None, exclude_categories=()), max_size=200)
SAMPLE = """# Title

Prose with **bold text** that is long enough to be wrapped, `code`, and a [link](https://example.org/a_b).
Next line.

1. one
1. two
   - inner
   ```python
   s = \"\"\"a
   b\"\"\"
   ```

| a | b |
|---|--:|
| 1 | 2 |
> quote
> more

""" + ("A long paragraph of *many* words. " * 20)


@given(MARKDOWN | ANY_TEXT, st.lists(st.integers(1, 9), min_size=1, max_size=30), st.sampled_from([10, 33, 80]))
@example(SAMPLE, [1], 30)
@example("a\rb\r\nc\r", [1], 80)
@example("# " + "x" * 998 + "\r\n", [1], 80)
@example("```\n" + "x" * 4_100 + "\r\n```", [7], 10)
@settings(max_examples=150, deadline=None)
def test_the_cutting_into_pieces_changes_nothing(text: str, pieces: list[int], width: int) -> None:
    assert draw(text, width, colour=True, pieces=pieces) == draw(text, width, colour=True)


@given(MARKDOWN | ANY_TEXT, st.sampled_from([10, 24, 80]))
@example(SAMPLE, 10)
@settings(max_examples=200, deadline=None)
def test_no_line_is_wider_than_the_window_and_no_control_byte_gets_out(text: str, width: int) -> None:
    coloured = draw(text, width, colour=True)
    bare = SGR.sub("", coloured)
    assert bare == draw(text, width), "colour changed the layout"
    assert not bare or bare.endswith("\n")
    for line in bare.split("\n"):
        assert max(0, wcswidth(line)) <= width, line
        for character in line:
            assert unicodedata.category(character) not in ("Cc", "Cs"), line
            assert character not in "\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069", line


@given(MARKDOWN, st.integers(0, 400), st.integers(1, 12))
@example("- a\n\n  bb", 9, 5)
@example("> - x " + "word " * 50, 200, 5)
@settings(max_examples=100, deadline=None)
def test_the_tail_is_what_would_follow_if_the_text_ended_there(text: str, cut: int, max_lines: int) -> None:
    stream = MarkdownStream(40)
    given_out = stream.feed(text[:cut])
    tail = stream.tail(max_lines)
    assert tail == stream.tail(max_lines), "to look changes nothing"
    whole = stream.finish()
    assert given_out + whole == draw(text[:cut], 40, colour=True)
    assert tail == "\n".join(whole.removesuffix("\n").split("\n")[-max_lines:])


def test_finished_lines_come_while_the_text_still_streams() -> None:
    stream = MarkdownStream(80, colour=False)
    steps = [
        ("First line.\n", "First line.\n"),
        ("- item\n", "- item\n".replace("-", "•")),
        ("```python\n", "```python\n"),
        ("x = 1\ny", "x = 1\n"),
        (" = 2\n```\n", "y = 2\n```\n"),
        ("# Head", ""),
        ("ing\n", "Heading\n"),
        ("| a | b |\n|--", ""),
        ("-|---|\n| 1 | 2 |\n", ""),
        ("\n", "a │ b\n──┼──\n1 │ 2\n"),
    ]
    for text, finished in steps:
        assert stream.feed(text) == finished, text


def test_lines_of_a_long_paragraph_are_given_as_soon_as_the_next_has_begun() -> None:
    stream = MarkdownStream(20, colour=False)
    words = ["word"] * 100
    out = stream.feed(" ".join(words) + " ")
    assert out.count("word") >= 92
    assert stream.feed("**open ") == "", "the line before the mark is not full yet"
    open_from = stream.tail(5)
    assert "**open" in open_from
    assert "**" not in stream.feed("bold** " + "more " * 20)


@pytest.mark.parametrize("start", ["", "a | b ", "- a | b ", "a\n> | "])
def test_a_long_line_of_prose_has_no_breaks_but_those_of_the_window(start: str) -> None:
    drawn = draw(start + "word " * 1_000, 80, pieces=[11])
    assert "".join(drawn.split()).count("word") == 1_000
    assert all(len(line) > 70 for line in drawn.splitlines()[1:-1])


def test_an_open_mark_holds_no_more_than_its_limit_back() -> None:
    stream = MarkdownStream(80, colour=False)
    out = stream.feed("**" + "never closed " * 500)
    assert out.startswith("**never closed")
    assert len(out) > 5_000


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("some words " * 18 + "**bold", "** and more words " * 3),
        ("```\n" + "c" * 990, "d" * 50 + "\n" + "e" * 50 + "\n```"),
        ("| a | b |\n|---|---|\n| " + "cell " * 8 + "| x |\n", "| " + "more " * 8 + "| y |\n\n"),
        ("| a | b |\n|---|---|\n" + ("| " + "cell " * 8 + "| x |\n") * 100, "| " + "more " * 8 + "| y |\n\n"),
        ("> - " + "word " * 60, "word " * 20),
        ("# " + "head " * 8, "ing " * 8 + "\n"),
    ],
    ids=["prose", "code", "table", "long table", "item", "heading"],
)
def test_a_resize_draws_what_is_not_finished_in_the_new_width(before: str, after: str) -> None:
    stream = MarkdownStream(60, colour=False)
    out = stream.feed(before)
    stream.resize(32)
    assert max(map(len, stream.tail(10).split("\n"))) <= 32
    rest = stream.feed(after) + stream.finish()
    assert max(map(len, rest.splitlines())) <= 32
    letters = [c for c in before + after if c.isalpha()]
    assert sorted(c for c in out + rest if c.isalpha()) == sorted(letters), "nothing is lost, nothing is twice"


def chars_read_per_char(start: str, unit: str, size: int, monkeypatch: pytest.MonkeyPatch) -> float:
    """Characters given to the parser, the lexer and the wrapper for each one that streams in, four at a time.

    The tail is looked at every six tokens, as at 60 tokens and ten pictures a second.
    """
    read = 0

    def counted(owner: object, name: str, position: int) -> None:
        function = getattr(owner, name)

        def counting(*arguments: Any) -> object:
            nonlocal read
            given_text = arguments[position]
            read += len(given_text) if isinstance(given_text, str) else sum(len(run[0]) for run in given_text)
            return function(*arguments)

        monkeypatch.setattr(owner, name, counting)

    with monkeypatch.context() as monkeypatch:
        counted(CodeLines, "_coloured", 1)
        counted(inline, "_parse", 0)
        counted(Wrapper, "feed", 1)
        text = start + unit * (size // len(unit))
        stream = MarkdownStream(80)
        for number, at in enumerate(range(0, len(text), 4)):
            stream.feed(text[at : at + 4])
            if number % 6 == 0:
                stream.tail(10)
        return read / len(text)


@pytest.mark.parametrize(
    ("start", "unit", "size", "most"),
    [
        ("", "Words of a paragraph with a *mark* and `code` in it, and on. ", 5_000, 12),
        ("", "It costs $5 and **never closed, ", 3_000, 60),
        ("", "- an `item` of a list that is wrapped over two lines, because it has many words\n", 5_000, 12),
        ("| a | b |\n|---|---|\n", "| some | *words* |\n", 6_000, 100),
        ("```python\n", "for i in range(9): print(i)  # on and on\n", 5_000, 6),
        ("```python\n", "x = [1, 2, 3] + ", 2_000, 60),
        ("", "no_space_at_all", 2_000, 80),
    ],
    ids=["prose", "open mark", "list", "table", "code", "one line of code", "one word"],
)
def test_the_work_of_a_token_does_not_grow_with_the_answer(
    start: str, unit: str, size: int, most: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = (chars_read_per_char(start, unit, chars, monkeypatch) for chars in (size, 3 * size))
    assert second < 1.25 * first
    assert second < most


@pytest.mark.parametrize(
    "text",
    [
        "`" * 1_000_000,
        "[" * 20_000,
        "![" * 5_000,
        "*a " * 10_000,
        "> " * 20_000,
        "- " * 20_000 + "x",
        "\n" * 100_000,
        " " * 100_000,
        "e" + "\u0301" * 50_000,
        "```c\n" + "/* " * 20_000,
        "| a " * 5_000 + "\n" + "|---" * 5_000,
    ],
    ids=lambda text: repr(text[:6]),
)
def test_hostile_text_ends(text: str) -> None:
    out = draw(text, 40, pieces=[50_000])
    assert all(wcswidth(line) <= 40 for line in out.splitlines())


def test_prefixes_only_grow() -> None:
    outs = [draw_so_far(SAMPLE[:end]) for end in range(0, len(SAMPLE), 3)]
    for before, after in pairwise(outs):
        assert after.startswith(before)


def draw_so_far(text: str) -> str:
    return MarkdownStream(30).feed(text)
