"""What keys and pastes do, in windows of any size."""

from __future__ import annotations

import shlex
import time
from pathlib import Path
from threading import Event

import pytest

from benchmarks.scripted import spoken
from tests.terminal.screen.terminal import Chat, play


@pytest.mark.parametrize("newline", ["\x1b\r", "\n", "\\\r"], ids=["alt-enter", "ctrl-j", "backslash"])
def test_a_message_may_have_several_lines(newline: str) -> None:
    async def scenario(chat: Chat) -> None:
        chat.type(f"first{newline}second\r")
        await chat.see("Yes.")
        await chat.see(lambda text: "> first\n  second\nYes." in text)

    assert play(scenario, spoken("Yes.")).asked == ["first\nsecond"]


def test_up_brings_back_what_was_sent_and_ctrl_r_finds_it() -> None:
    async def scenario(chat: Chat) -> None:
        for word in ("alpha", "beta"):
            chat.type(f"{word}\r")
            await chat.see(f"{word} heard")
        chat.type("\x1b[A")
        await chat.see(lambda text: "\n> beta\n" in text.partition("beta heard")[2])
        chat.type("\x15\x12alp")
        await chat.see(lambda text: "alpha" in text.partition("beta heard")[2])
        chat.type("\r\r")
        await chat.see("again")

    chat = play(scenario, spoken("alpha heard"), spoken("beta heard"), spoken("again"))
    assert chat.asked == ["alpha", "beta", "alpha"]


def test_tab_completes_commands_and_what_follows_them(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("x", encoding="utf-8")

    async def scenario(chat: Chat) -> None:
        chat.type("/dro\t")
        await chat.see("> /drop")
        chat.type("\x15/think of\t")
        await chat.see("> /think off")
        chat.type(f"\x15/image {tmp_path}/no\t")
        await chat.see(lambda text: "notes.txt" in text.replace("\n", "").replace(" ", ""))

    play(scenario)


def test_two_megabytes_pasted_become_a_chip_that_is_sent_in_full() -> None:
    text = "".join(f"line {number} of many\n" for number in range(110_000))

    async def scenario(chat: Chat) -> None:
        longest_pause_s, last_s = 0.0, time.thread_time()  # what else the machine does is no pause of ours

        def arrived(shown: str) -> bool:
            nonlocal longest_pause_s, last_s
            now_s = time.thread_time()
            longest_pause_s, last_s = max(longest_pause_s, now_s - last_s), now_s
            return "[1] pasted text, 2.1 MB, 110,001 lines" in shown

        chat.paste(text)
        await chat.see(arrived)
        assert longest_pause_s < 1  # the screen stays alive meanwhile
        chat.type("what is it?\r")
        await chat.see("Lines.")

    chat = play(scenario, spoken("Lines."))
    assert chat.asked == [f"{text}\n\nwhat is it?"]
    assert sum(map(len, chat.terminal.writes)) < 50_000


def test_a_pasted_chip_can_be_taken_back() -> None:
    async def scenario(chat: Chat) -> None:
        chat.paste("a" * 5000)
        chat.paste("b" * 6000)
        await chat.see("[2] pasted text, 6 KB")
        chat.type("/drop 1\r")
        await chat.see("taken back: pasted text, 5 KB")
        chat.type("\x7f")
        await chat.see(lambda text: "\n[1]" not in text)
        chat.type("Hello\r")
        await chat.see("Hi.")

    assert play(scenario, spoken("Hi.")).asked == ["Hello"]


def test_a_long_paste_comes_back_as_a_chip_from_a_turn_that_is_taken_back_to_be_changed() -> None:
    async def scenario(chat: Chat) -> None:
        chat.paste("a" * 5000)
        await chat.see("[1] pasted text, 5 KB")
        chat.type("what is it?\r")
        await chat.answered("Letters.")
        chat.type("/edit\r")
        await chat.see("[1] pasted text, 5 KB, 3 lines\n>\n")
        chat.type("briefly\r")
        await chat.see("As.")

    chat = play(scenario, spoken("Letters."), spoken("As."))
    assert chat.asked[1] == f"{chat.asked[0]}\n\nbriefly" == "a" * 5000 + "\n\nwhat is it?\n\nbriefly"


def test_what_is_pasted_while_a_question_is_open_goes_nowhere(media: Path) -> None:
    async def scenario(chat: Chat) -> None:
        chat.paste(str(media / "picture.png"))
        await chat.see("[y/N]")
        chat.paste("y\x1b]0;x\x07 and more")
        chat.type("n")
        await chat.see(lambda text: "[y/N]" not in text)
        chat.type("?\r")
        await chat.see("A name.")

    assert play(scenario, spoken("A name.")).asked == [f"{media / 'picture.png'}?"]


def test_a_short_paste_is_typed_with_its_newlines_and_is_not_sent_by_them() -> None:
    async def scenario(chat: Chat) -> None:
        chat.paste("one\r\ntwo\r")
        await chat.see("> one\n  two")
        chat.type("\r")
        await chat.see("Yes.")

    assert play(scenario, spoken("Yes.")).asked == ["one\ntwo"]


def test_control_bytes_in_a_paste_are_marks() -> None:
    async def scenario(chat: Chat) -> None:
        chat.paste("a\x1b]52;c;x\x07\u202eb")
        await chat.see("a␛]52;c;x␇<U+202E>b")

    chat = play(scenario)
    assert "\x1b]52" not in "".join(chat.terminal.writes)


def test_a_dropped_picture_is_attached_after_a_yes_only(media: Path) -> None:
    async def scenario(chat: Chat) -> None:
        picture = shlex.quote(str(media / "picture.png"))
        chat.paste(picture)
        await chat.see("attach picture.png? [y/N]")
        chat.type("n")
        await chat.see(lambda text: "[y/N]" not in text)
        chat.type("\x15")
        chat.paste(picture)
        await chat.see("attach picture.png? [y/N]")
        chat.type("y")
        await chat.see("[1] picture.png 320x240")
        chat.type("What is it?\r")
        await chat.see("A picture.")

    chat = play(scenario, spoken("A picture."))
    assert [part["type"] for part in chat.gemma.asked[0]["content"]] == ["image", "text"]


def test_backspace_in_an_empty_line_takes_the_last_picture_back(media: Path) -> None:
    async def scenario(chat: Chat) -> None:
        for _ in range(2):
            chat.type(f"/image {media / 'picture.png'}\r")
        await chat.see("[2] picture.png")
        chat.type("x\x7f\x7f")
        await chat.see(lambda text: "\n[2]" not in text and "\n[1] picture.png" in text)

    play(scenario)


def test_a_question_that_nobody_answers_does_not_keep_the_chat_open(media: Path) -> None:
    async def scenario(chat: Chat) -> None:
        chat.paste(str(media / "picture.png"))
        await chat.see("[y/N]")

    assert "[1]" not in play(scenario).text


@pytest.mark.parametrize(("columns", "rows"), [(20, 8), (40, 12), (10, 4), (200, 50)])
def test_windows_of_any_size(columns: int, rows: int) -> None:
    more = Event()
    answer = "Some **words** and `code`:\n\n```python\nx = 'a long line of code that does not fit'\n```\n" * 3

    async def scenario(chat: Chat) -> None:
        chat.type("Hello\r")
        await chat.see("code that" if columns > 20 else "Some")
        await chat.see(lambda text: any(row.startswith(">") for row in chat.terminal.visible_rows))
        chat.type("typed")
        await chat.see("> typed")
        more.set()
        await chat.see("The end.")
        assert max(map(len, chat.terminal.rows)) <= columns

    play(scenario, [*spoken(answer), more, *spoken("\nThe end.")], columns=columns, rows=rows)


def test_after_a_resize_the_unfinished_rest_has_the_new_width() -> None:
    more, end = Event(), Event()

    async def scenario(chat: Chat) -> None:
        chat.type("Hello\r")
        await chat.see("finished line")
        chat.terminal.resize(30, 24)
        more.set()
        await chat.see("last")
        end.set()
        await chat.see(lambda text: "answering" not in text)
        said = chat.text.partition("finished line")[2]
        assert max(len(line) for line in said.splitlines()[1:]) <= 30

    play(scenario, [*spoken("finished line\n\n"), *spoken("word " * 8), more, *spoken("word " * 20 + "last"), end])
