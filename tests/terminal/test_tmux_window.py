"""The chat in windows of other sizes, in windows that change, and with pastes of any size."""

from __future__ import annotations

from pathlib import Path

from gemma_mlx.terminal.safe import visible
from tests.terminal.conftest import OpenChat
from tests.terminal.kept import KeptFiles
from tests.terminal.tmux import ENDLESS, Chat


def test_a_window_can_change_while_an_answer_streams(open_chat: OpenChat, endless_model: Path, own_home: Path) -> None:
    chat = open_chat("-m", endless_model, *ENDLESS)
    chat.wait_until_ready()
    chat.enter("Hello")
    for columns, rows in ((80, 24), (40, 12), (120, 30), (24, 8), (80, 24)):
        chat.resize(columns, rows)
        before = len(chat.text)
        chat.wait_for(lambda text: len(text) > before + 300)  # noqa: B023  # looked at before the next one
        assert len(chat.rows) <= rows
        chat.wait_for(lambda _: whole(chat))
    chat.type("typed meanwhile")
    chat.wait_for(lambda _: chat.rows[-2] == "> typed meanwhile")
    chat.keys("C-c")
    chat.wait_until_ready()
    assert chat.rows[-2] == "> typed meanwhile"
    chat.keys("C-c")
    chat.leave()
    [answered] = KeptFiles(own_home).answered
    shown = chat.text.partition("> Hello")[2]
    said = visible(answered["answer"]).split()
    assert said[0] in shown
    assert said[-1] in shown


def test_a_narrow_window_shows_all_that_matters(open_chat: OpenChat, own_home: Path) -> None:
    chat = open_chat(columns=24, rows=8)
    chat.wait_until_ready()
    chat.enter("Which shapes do you know?")
    chat.wait_for("star.")
    chat.wait_until_ready()
    assert "I know the circle, the\nsquare, the triangle and\nthe star.\n" in chat.text
    assert chat.rows[-2:] == [">", "miniature"]
    chat.enter("/help")
    chat.wait_for("/quit")
    assert max(map(len, chat.text.splitlines())) <= 24
    chat.type("A line that is longer than the window is wide")
    chat.wait_for(lambda _: "wide" in "".join(row.strip() for row in chat.rows[:-1]))
    chat.keys("C-c")
    chat.wait_for(lambda _: chat.rows[-2:] == [">", "miniature"])
    chat.leave()
    assert KeptFiles(own_home).kinds == ["asked", "answered"]


def test_a_large_paste_is_a_chip_and_is_sent_whole_or_refused_by_name(open_chat: OpenChat, own_home: Path) -> None:
    chat = open_chat("-n", 8)
    chat.wait_until_ready()
    long = "".join(f"Line {number} of the paste.\n" for number in range(200))  # more than is drawn into the line
    chat.paste(long)
    chat.wait_for(lambda _: len(chat.chips) == 1)
    chat.wait_for(lambda _: chat.chips == ["[1] pasted text, 4 KB, 201 lines"])
    chat.enter("How are you?")
    chat.wait_for(lambda _: "first " in chat.status)
    kept = KeptFiles(own_home)
    assert kept.asked[0]["text"] == f"{long}\n\nHow are you?"
    huge = "".join(f"Line {number:06} is one of many in a very large paste.\n" for number in range(40_000))
    chat.paste(huge)
    chat.wait_for(lambda _: len(chat.chips) == 1)
    chat.wait_for(lambda _: chat.chips == ["[1] pasted text, 2.0 MB, 40,001 lines"])
    chat.enter("What is this?")
    chat.type("typed meanwhile")
    chat.wait_for(lambda _: chat.rows[-2].endswith("typed meanwhile"))
    text = chat.wait_for("error: ")
    assert "8,192" in text.partition("error: ")[2]
    chat.wait_until_ready()
    assert chat.chips[0] == "[1] pasted text, 2.0 MB, 40,001 lines"
    assert text.count("Line ") == 0  # nobody reads it on the screen
    chat.keys("C-c")
    chat.enter("/drop")
    chat.wait_for("taken back")
    chat.ask("How are you?", "I am fine, thank you.")
    chat.leave()
    assert [line["text"] for line in kept.asked[-1:]] == ["How are you?"]
    assert (kept.folder / "chat.jsonl").stat().st_size < 100_000


def whole(chat: Chat) -> bool:
    """Whether the input line and the status line stand at the end, once."""
    rows = chat.rows
    return rows[-1].startswith("answering") and rows[-2] == ">" and sum(row == ">" for row in rows) == 1
