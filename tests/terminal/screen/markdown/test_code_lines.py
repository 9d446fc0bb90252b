"""Code coloured line by line has the colours that it would have, coloured whole."""

from __future__ import annotations

import pytest
from pygments.lexers import get_lexer_by_name
from pygments.token import Error
from rich.style import Style
from rich.syntax import ANSI_DARK, ANSISyntaxTheme

from gemma_mlx.terminal.screen.markdown.code_lines import CodeLines
from gemma_mlx.terminal.screen.markdown.styled_text import Line
from tests.terminal.screen.markdown.drawing import SGR, draw

SOURCES = {
    "python": 'def f(x):\n    """doc\n    if not code: 1\n    """\n    return f"{x} #"  # y\n@dec\nclass A: pass\n',
    "c": '/* one\n   int two\n */ int x; // 3\n#define A \\\n  1 /* x */\ns = "/*";\n/* a */ /* b\n c */ int z;\n',
    "javascript": "const a = `x ${b}\nif (c) d\n`; /* e\n var f\n*/ var g = /[/*]/;\n",
    "go": "var a = `raw\nif x\n`\nfunc main() { /* a\nreturn */ return }\n",
    "rust": '/* a /* b */\n fn c */ fn main() { let s = "a\nfn b"; }\n',
    "php": "<?php\n$a = 'b\nif c';\n/* c\n return */ return 1;\n",
    "ruby": 'a = 1\n=begin\nif c\n=end\nputs "d"\n',
    "perl": "=head1 A\n\nif b\n\n=cut\n\nprint 'c';\n",
    "yaml": "a:\n  - run: |\n      if b: c\n      d\n  - e: 1\n",
    "toml": "a = [\n    'b',\n    'c',\n]\n[d]\ne = 1\n",
    "html": "<p class='a\nb'><!-- <p>\n</p> --><script>\nvar a = 1; /* b\nif c */\n\nif (d && e) {}\n</script>\n",
    "bash": 'for f in *; do echo "a\nif b" # c\ncat <<EOF >d\nif $e\nEOF\ndone\n',
    "sql": "select a /* b\nfrom */ from c where d = 'e\nselect';\n",
    "css": "a { color: red; /* b\nc: d; */ e: 1px }\n",
    "json": '{"a": [1, true,\n "b"], "c": null}\n',
    "diff": "--- a\n+++ b\n@@ -1 +1 @@\n-old\n+new\n same\n",
}


def styles(lines: list[Line]) -> list[list[tuple[str, Style]]]:
    """The style of each character but spaces (whose colour does not show)."""
    return [[(char, style) for text, style in line for char in text if char != " "] for line in lines]


@pytest.mark.parametrize("language", SOURCES)
def test_line_by_line_is_as_whole(language: str) -> None:
    source = SOURCES[language]
    theme = ANSISyntaxTheme({**ANSI_DARK, Error: Style()})
    whole: list[Line] = [[]]
    for kind, value in get_lexer_by_name(language, stripnl=False, ensurenl=False).get_tokens(source):
        first, *others = value.split("\n")
        whole[-1].append((first, theme.get_style_for_token(kind)))
        whole += [[(part, theme.get_style_for_token(kind))] for part in others]
    code = CodeLines(language, 200)
    lines = [line for text in source.removesuffix("\n").split("\n") for line in code.add(text, ends=True)]
    assert styles(lines) == styles(whole[:-1])
    assert any(style for line in lines for _, style in line), "it has colours"


def test_what_is_kept_of_an_open_comment_does_not_grow() -> None:
    code = CodeLines("c", 80)
    code.add("/* begins", ends=True)
    kept = code._kept
    for _ in range(1_000):
        (line,) = code.add("int inside;", ends=True)
        assert {style.dim for _, style in line} == {True}
    assert code._kept == kept
    code.add("*/ int after;", ends=True)
    assert code._kept == ""


def test_a_look_at_a_line_leaves_the_state_as_it_was() -> None:
    code = CodeLines("python", 80)
    code.add('x = """a', ends=True)
    code.fork().add('""" + 1', ends=True)
    (line,) = code.add("if inside:", ends=True)
    assert len({style for _, style in line}) == 1


def test_a_lexer_that_fails_leaves_the_text_without_colours(monkeypatch: pytest.MonkeyPatch) -> None:
    def failing(*_: object) -> None:
        raise RecursionError

    monkeypatch.setattr(CodeLines, "_lexed", failing)
    assert CodeLines("python", 80).add("x = 1", ends=True) == [[("x = 1", Style.null())]]


def test_a_lexer_that_drops_characters_leaves_the_text_without_colours(monkeypatch: pytest.MonkeyPatch) -> None:
    def dropping(self: CodeLines, *_: object) -> Line:
        return [("x ", Style.null()), ("1", Style(bold=True))]

    monkeypatch.setattr(CodeLines, "_lexed", dropping)
    assert CodeLines("python", 80).add("x = 1", ends=True) == [[("x = 1", Style.null())]]


@pytest.mark.parametrize("language", ["", "nothing-known", "\x1b[31m", "c\x9b", "../../etc", "{.python}", "p" * 5_000])
def test_any_language_is_drawn(language: str) -> None:
    assert "x = 1\n" in draw(f"```{language}\nx = 1\n```\n")


def test_a_line_wider_than_the_window_keeps_every_character() -> None:
    line = "    s = 'a  b   日本語  c'  # " + "word  " * 20
    drawn = draw(f"```python\n{line}\n```\n", 17)
    assert "".join(drawn.split("\n")[1:-2]) == line


def test_a_line_without_an_end_is_given_row_by_row() -> None:
    drawn = draw("```python\n" + "abc " * 2_000, 40, colour=True, pieces=[3])
    assert SGR.sub("", drawn) == "```python\n" + ("abc " * 10 + "\n") * 200


def test_code_has_no_border_and_nothing_after_its_lines() -> None:
    assert draw("```\na\n\n  b\n```\n", 20) == "```\na\n\n  b\n```\n"
