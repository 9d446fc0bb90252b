"""What each kind of block looks like."""

from __future__ import annotations

import textwrap

import pytest

from tests.terminal.screen.markdown.drawing import draw


def drawn(text: str, width: int = 40) -> list[str]:
    return draw(text, width).splitlines()


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        ("one\ntwo", ["one", "two"]),
        ("one\r\ntwo\r\n", ["one", "two"]),
        ("\n\none\n\n\n\ntwo\n\n", ["one", "", "two"]),
        ("# One #\ntext", ["One", "text"]),
        ("####### seven", ["####### seven"]),
        ("#tag", ["#tag"]),
        ("text\n---\nmore\n===", ["text", "─" * 40, "more", "==="]),
        ("* * *", ["─" * 40]),
        ("- a\n- b\n  - c\n    d", ["• a", "• b", "  • c", "    d"]),
        ("- a\nlazy", ["• a", "  lazy"]),
        ("- a\n\nout", ["• a", "", "out"]),
        ("-\n- b", ["•", "• b"]),
        ("- [ ] a\n- [X] b\n- [y] c", ["☐ a", "☑ b", "• [y] c"]),
        ("3. a\n4. b", ["3. a", "4. b"]),
        ("1. a\n1. b\n1. c", ["1. a", "2. b", "3. c"]),
        ("1. a\n2. b\n4. c", ["1. a", "2. b", "4. c"]),
        ("1. a\n\n   more\n\n1. b", ["1. a", "", "   more", "", "2. b"]),
        ("1) a\n1. b", ["1) a", "1. b"]),
        ("1. a\n  - under it\n10. b\n   c", ["1. a", "   • under it", "10. b", "    c"]),
        ("1. a\n```sh\nls\n```\n2. b", ["1. a", "```sh", "ls", "```", "2. b"]),
        ("1. a\n   ```sh\nls\n     -l\n   ```\n2. b", ["1. a", "   ```sh", "   ls", "     -l", "   ```", "2. b"]),
        ("> a\n> b\nlazy\n\nout", ["│ a", "│ b", "│ lazy", "", "out"]),
        ("> a\n>\n> > b\n> - c", ["│ a", "│", "│ │ b", "│ • c"]),
        (">a\n\n>b", ["│ a", "", "│ b"]),
        ("> ```\n> x\nout", ["│ ```", "│ x", "out"]),
        ("    as *typed*\n      too", ["    as *typed*", "      too"]),
        ("text\n    goes on", ["text", "goes on"]),
        ("```\n# x\n````", ["```", "# x", "````"]),
        ("````\n```\n````\n*a*", ["````", "```", "````", "a"]),
        ("~~~ python\n```\n~~~\n*a*", ["~~~ python", "```", "~~~", "a"]),
        ("``` a`b\n*c*", ["``` a`b", "c"]),
        ("\tx\n- a\n\tb", ["    x", "• a", "  b"]),
        ("$$\na_1 * b_2 *\n$$\n*a*", ["$$", "a_1 * b_2 *", "$$", "a"]),
        ("\\[\nx^*\n\\]\n*a*", ["\\[", "x^*", "\\]", "a"]),
        ("$$ never\n\n*a*", ["$$ never", "", "a"]),
        ("<div>\n<b>x</b> &lt;", ["<div>", "<b>x</b> <"]),
        ("[a]: http://b", ["[a]: http://b"]),
    ],
)
def test_block(text: str, lines: list[str]) -> None:
    assert drawn(text) == lines


def test_lines_of_an_item_hang_under_its_text() -> None:
    assert drawn("12. some words that are wrapped", 14) == ["12. some words", "    that are", "    wrapped"]


def test_a_quote_that_is_nested_without_end_leaves_half_of_the_window_to_the_text() -> None:
    lines = drawn(">" * 500 + " deep text", 12)
    assert all(len(line) <= 12 for line in lines)
    assert "deep" in "".join(line.replace("│ ", "").replace("\n", "") for line in lines)


def test_numbers_go_on_over_items_that_are_out_already() -> None:
    text = "".join(f"1. item\n\n   ```\n   {number}\n   ```\n\n" for number in range(12))
    numbers = [line.split(".")[0] for line in drawn(text) if line.endswith("item")]
    assert numbers == [str(number) for number in range(1, 13)]


TABLE = textwrap.dedent("""\
    | Name | Size | What |
    |:-----|-----:|:----:|
    | ab | 3 | **x** |
    | `日本` | 12 | y \\| z<br>w |
    | only one |
    """)


def test_table() -> None:
    assert drawn(TABLE) == [
        "Name     │ Size │ What",
        "─────────┼──────┼──────",
        "ab       │    3 │   x",
        "日本     │   12 │ y | z",
        "         │      │   w",
        "only one │      │",
    ]


def test_long_cells_fold_in_a_table_as_wide_as_the_window() -> None:
    lines = drawn("|a|b|\n|-|-|\n|short|" + "many words " * 8 + "|\n", 36)
    assert max(map(len, lines)) <= 36
    assert lines[2].startswith("short │ many words many")
    assert lines[3].startswith("      │ ")


def test_a_narrow_window_gets_labels() -> None:
    assert drawn(TABLE, 18) == [
        *("Name: ab", "Size: 3", "What: x", ""),
        *("Name: 日本", "Size: 12", "What: y | z", "w", ""),
        *("Name: only one", "Size:", "What:"),
    ]


@pytest.mark.parametrize(
    "text",
    ["a | b\nc | d", "a | b\n- | -", "a | b\n--- | --- | ---", "a | b\n\n---|---", "a | b"],
)
def test_no_table(text: str) -> None:
    assert "┼" not in draw(text)


def test_a_table_ends_with_its_last_row() -> None:
    assert drawn("text\na|b\n-|-\n1|2\nafter\n") == ["text", "a │ b", "──┼──", "1 │ 2", "after"]
    assert drawn("- a|b\n  -|-\n  1|2\n- c|d") == ["• a │ b", "  ──┼──", "  1 │ 2", "• c|d"]


def test_a_long_table_keeps_the_columns_of_its_first_rows() -> None:
    rows = "| abc | def |\n" * 400
    lines = drawn("| a | b |\n|---|---|\n" + rows + "| " + "wide " * 30 + "| x |\n")
    assert lines[2:402] == ["abc │ def"] * 400
    assert max(map(len, lines)) == 9
    assert "".join(lines[402:]).count("wid") == 30
