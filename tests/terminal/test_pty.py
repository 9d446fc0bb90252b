"""The chat on a terminal of its own: what it sends there, and how it ends, whatever happens to it."""

from __future__ import annotations

import json
import resource
import signal
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.terminal.conftest import ChangedModel
from tests.terminal.hostile import ATTACKS, INVISIBLE, leaks
from tests.terminal.pty_chat import PtyChat

LONG = ("-n", 4000, "-t", 20, "--top-k", 0, "--top-p", 1)


def assert_left_as_it_was(chat: PtyChat) -> None:
    """The terminal is again as before, nothing was sent that it must not get, and no error went past the chat."""
    assert chat.modes_now == chat.modes
    assert chat.sent.rfind("\x1b[?2004h") <= chat.sent.rfind("\x1b[?2004l")  # bracketed paste
    assert chat.sent.rfind("\x1b[?25l") <= chat.sent.rfind("\x1b[?25h")  # the cursor
    assert leaks(chat.sent) == []
    assert not any(word in chat.sent for word in ("Traceback", "terminate called", "Unhandled exception"))


def stream(chat: PtyChat, message: str) -> None:
    chat.see("context ")
    chat.type(f"{message}\r")
    chat.see(lambda text: len(text.partition(f"> {message}")[2]) > 300)


def kept(home: Path, name: str) -> list[dict[str, Any]]:
    lines = (home / "chats" / name / "chat.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


def test_a_full_disk_is_one_line_for_a_turn_and_the_chat_goes_on(own_home: Path) -> None:
    def fill_the_disk() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))

    with PtyChat("-q", home=own_home, before=fill_the_disk) as chat:
        chat.see("context ")
        chat.type("Hello\r")
        chat.see("the next message tries again")
        chat.type("How are you?\r")
        shown = chat.see(lambda text: text.count("the next message tries again") == 2)
        chat.type("\x04")
        assert chat.end() == 0
        assert shown.count("the chat is not saved (File too large)") == 2
        assert_left_as_it_was(chat)


def test_killed_while_it_answers_it_loses_neither_the_turn_before_nor_the_message(
    own_home: Path, endless_model: Path
) -> None:
    with PtyChat("--session", "Rome", "-n", 1, home=own_home) as chat:
        chat.see("context ")
        chat.type("First\r")
        chat.see("first")
        chat.type("\x04")
        chat.end()
    with PtyChat("--resume", "-m", endless_model, *LONG, home=own_home) as chat:
        stream(chat, "Second")
        chat.process.kill()
    with PtyChat("--resume", "-n", 1, home=own_home) as chat:
        chat.see("> Second")
        chat.type("\r")
        chat.see("first")
        chat.type("\x04")
        assert chat.end() == 0
        assert_left_as_it_was(chat)
    told = [(line["line"], line.get("text")) for line in kept(own_home, "Rome")]
    asked, answered = "asked", ("answered", None)
    assert told == [(asked, "First"), answered, (asked, "Second"), (asked, "Second"), answered]


def test_a_terminal_that_goes_away_ends_it_with_the_answer_kept(own_home: Path, endless_model: Path) -> None:
    with PtyChat("--session", "Rome", "-m", endless_model, *LONG, home=own_home) as chat:
        stream(chat, "Hello")
        chat.close_terminal()
        assert chat.process.wait(60) == 0
    assert [line["line"] for line in kept(own_home, "Rome")] == ["asked", "answered"]


def test_interrupted_from_outside_it_ends_with_130_and_the_answer_kept(own_home: Path, endless_model: Path) -> None:
    with PtyChat("--session", "Rome", "-m", endless_model, *LONG, home=own_home) as chat:
        stream(chat, "Hello")
        chat.process.send_signal(signal.SIGINT)
        assert chat.end() == 130
        assert_left_as_it_was(chat)
    assert [line["line"] for line in kept(own_home, "Rome")] == ["asked", "answered"]


def test_a_chat_that_is_open_elsewhere_is_one_line(own_home: Path) -> None:
    with PtyChat("--session", "Rome", "-n", 1, home=own_home) as chat:
        chat.see("context ")
        chat.type("Hello\r")
        chat.see("first")
        with PtyChat("--session", "Rome", home=own_home) as second:
            assert second.end() == 1
            assert "error: the chat 'Rome' is open elsewhere; leave it there, or begin another" in second.text
            assert_left_as_it_was(second)


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        (["--resume"], "there is no chat to resume"),
        (["--session", "a/\x1b]0;b\x07"], "is no name for a chat"),
        (["--resume", "--no-save"], "--resume needs a chat that is kept"),
        (["-m", "/no\x1b[2J\u202e/such"], "no model folder"),
        (["--\x1b]0;b\x07"], "No such option"),
        (["--detail", "\x1b]0;b\x07"], "Invalid value for '--detail'"),
    ],
)
def test_wrong_usage_is_told_safely_and_ends_with_2(own_home: Path, flags: list[str], told: str) -> None:
    with PtyChat(*flags, home=own_home) as chat:
        assert chat.end() == 2
        assert told in chat.text
        assert_left_as_it_was(chat)


NEVER_LOADS = """
import threading
import gemma_mlx.loader
gemma_mlx.loader.load = lambda *folder, **options: threading.Event().wait()
from gemma_mlx.__main__ import main
main()
"""


@pytest.mark.parametrize(
    ("key", "code"), [("\x04", 0), ("\x03\x03", 0), (signal.SIGTERM, 0), (signal.SIGINT, 130)], ids=str
)
def test_leaving_does_not_wait_for_the_model(own_home: Path, key: str | signal.Signals, code: int) -> None:
    with PtyChat("chat", home=own_home, command=[sys.executable, "-c", NEVER_LOADS]) as chat:
        chat.see("loading")
        if isinstance(key, str):
            chat.type(key)
        else:
            chat.process.send_signal(key)
        assert chat.end() == code
        assert_left_as_it_was(chat)


def test_what_strangers_wrote_into_a_chat_and_a_history_is_not_obeyed(own_home: Path) -> None:
    text = "\n".join([*ATTACKS.values(), *INVISIBLE.values()])
    settings = {"system": text, "thinking": False, "detail": None}
    media = [
        {"kind": "image", "name": attack, "label": attack, "digest": attack, "detail": 70, "file": attack}
        for attack in ATTACKS.values()
    ]
    lines: list[dict[str, Any]] = [
        {"line": "asked", "turn": 1, "text": text, "media": media, "at": text, **settings},
        {"line": "answered", "turn": 1, "answer": text, "thought": text, "figures": {"model": text}, **settings},
        {"line": text},
        {"line": "asked", "turn": 2, "text": f"unsent {text}", "media": media, "at": text, **settings},
    ]
    folder = own_home / "chats" / "Rome\x1b]0;t\x07\u202e"
    folder.mkdir(parents=True)
    (folder / "chat.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    typed = [attack.encode("utf-8", "surrogatepass").replace(b"\n", b" ") for attack in ATTACKS.values()]
    (own_home / "history").write_bytes(b"".join(b"\n# then\n+x %s z\n" % line for line in typed))
    with PtyChat("--resume", home=own_home, rows=60) as chat:
        chat.see("> unsent")
        chat.type("\x03/sessions\r")
        chat.see("1 turn ")
        chat.type("/thoughts\r/stats\r")
        chat.see("there is no answer yet")
        for _ in range(3 + len(typed)):  # the three commands, and what was typed before
            chat.type("\x1b[A")
            chat.see(lambda text: any(row.startswith("> ") for row in text.split("\n")[-12:]))
        chat.see("> x ")
        chat.type("\x03/edit\r")
        chat.see(lambda _: "the turn is taken back" in chat.sent)  # the turn itself fills the screen
        chat.type("\x03\x03\x03")
        assert chat.end() == 0
        assert_left_as_it_was(chat)


def test_what_fails_while_the_model_loads_stands_on_a_line_of_its_own(
    own_home: Path, changed_model: ChangedModel
) -> None:
    with PtyChat("--plain", "-m", changed_model("tokenizer.json", "{}"), home=own_home) as chat:
        assert chat.end() == 1
        assert "\nerror: cannot read" in chat.text
        assert "loading" not in chat.text
