from __future__ import annotations

import io

import pytest

from gemma_mlx.terminal import output
from gemma_mlx.terminal.output import Output
from gemma_mlx.terminal.safe import visible, visible_line, visible_name
from tests.terminal.hostile import ATTACKS, INVISIBLE, leaks


@pytest.mark.parametrize("attack", ATTACKS.values(), ids=ATTACKS.keys())
def test_nothing_that_a_terminal_obeys_remains(attack: str) -> None:
    shown = visible(attack)
    assert leaks(shown) == []
    assert len(shown) >= len(attack)  # shown as marks, not left out
    shown.encode("utf-8")


def test_marks_are_the_same_however_the_text_is_split() -> None:
    attack = "".join(ATTACKS.values())
    assert "".join(map(visible, attack)) == visible(attack)


@pytest.mark.parametrize("trick", INVISIBLE.values(), ids=INVISIBLE.keys())
def test_what_has_no_width_is_marked_in_a_name_and_left_in_a_text(trick: str) -> None:
    assert visible(trick) == trick
    assert visible_name(trick).isascii()
    assert len(visible_name(trick)) > len(trick)


def test_ordinary_text_is_unchanged() -> None:
    text = "Grüße, 你好, 🎉, مرحبا\n\tindented"
    assert visible(text) == text


def test_a_line_stays_on_its_line() -> None:
    assert visible_line("a\nb\tc\r") == "a␊b␉c␍"


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_an_answer_is_safe_on_a_terminal_and_faithful_in_a_pipe(monkeypatch: pytest.MonkeyPatch) -> None:
    for stream, expected in ((Terminal(), "␛]52;c;x␇"), (io.StringIO(), "\x1b]52;c;x\x07")):
        monkeypatch.setattr(output.sys, "stdout", stream)
        shown = Output()
        for piece in ("\x1b", "]52;c;", "x\x07"):
            shown.answer(piece)
        shown.end_answer()
        assert stream.getvalue() == expected + "\n"


def test_notes_are_safe_also_in_a_pipe(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = io.StringIO()
    monkeypatch.setattr(output.sys, "stderr", stream)
    Output().note("\x1b[31mred.png\n320x240")
    assert stream.getvalue() == "␛[31mred.png␊320x240\n"


@pytest.mark.parametrize(("environment", "styled"), [({}, True), ({"NO_COLOR": "1"}, False), ({"TERM": "dumb"}, False)])
def test_style_only_where_it_is_wanted(
    monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], styled: bool
) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    stream = Terminal()
    monkeypatch.setattr(output.sys, "stderr", stream)
    Output().note("dim")
    assert ("\x1b[" in stream.getvalue()) == styled


def test_an_answer_ends_with_one_newline(capsys: pytest.CaptureFixture[str]) -> None:
    shown = Output()
    for piece in ("a\n", "\n", "b\n\n", "\n"):
        shown.answer(piece)
    shown.end_answer()
    assert capsys.readouterr().out == "a\n\nb\n"


def test_an_answer_that_fails_before_its_first_word_leaves_stdout_empty(capsys: pytest.CaptureFixture[str]) -> None:
    shown = Output()
    shown.answer("\n")
    shown.end_answer(whole=False)
    assert capsys.readouterr().out == ""
    shown.answer("a")
    shown.end_answer(whole=False)
    assert capsys.readouterr().out == "a\n"


def test_thoughts_go_to_stderr_and_the_answer_begins_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    shown = Output()
    shown.thought("hm, ")
    shown.thought("yes")
    shown.answer("4")
    shown.end_answer()
    written = capsys.readouterr()
    assert (written.out, written.err) == ("4\n", "hm, yes\n")
