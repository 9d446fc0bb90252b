"""Nothing that a model, a file's name or an error says is obeyed by the terminal."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from benchmarks.scripted import Script
from gemma_mlx.errors import InputError
from tests.terminal.screen.terminal import Chat, play

ATTACKS = {
    "clear": "\x1b[2J\x1b[H",
    "title": "\x1b]0;pwned\x07",
    "clipboard": "\x1b]52;c;cHduZWQ=\x1b\\",
    "link": "\x1b]8;;http://pwned/\x07text\x1b]8;;\x07",
    "device": "\x1bPpwned\x1b\\",
    "c1": "\x9b2J\x9d0;pwned\x9c",
    "bell": "\x07\x08\x0b\x0c\x0e\x7f",
    "bidi": "\u202epwned\u202c\u2066x\u2069",
    "entity": "&#27;]0;pwned&#7; &#x9b;2J",
    "code": "```\x1b]0;pwned\x07\nx\x1b[2J\n```\n",
    "target": "[click](http://x/\x1b]0;pwned\x07)",
}
_OURS = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|\x1b[=>]")
"""What prompt_toolkit and our own styles are made of; the title, the clipboard and strings to the device are not."""
_FORBIDDEN = re.compile("[\x00-\x06\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")


def sent_beside_ours(chat: Chat) -> str:
    return _OURS.sub("", "".join(chat.terminal.writes)).replace("\r", "").replace("\x08", "")


@pytest.mark.parametrize("attack", ATTACKS.values(), ids=ATTACKS)
@pytest.mark.parametrize("cut", ["whole", "by character"])
@pytest.mark.parametrize("channel", ["answer", "thought"])
def test_bytes_of_an_answer_are_marks(attack: str, cut: str, channel: str) -> None:
    pieces = [attack] if cut == "whole" else list(attack)
    script: Script = [*((channel, piece) for piece in pieces), ("answer", "\n\nThe end.")]  # type: ignore[misc]

    async def scenario(chat: Chat) -> None:
        chat.type("Hello\r")
        await chat.see("The end.")
        if channel == "thought":
            chat.type("/thoughts\r")
        chat.type("/stats\r")
        await chat.see("memory 1.00 of 2.00 GB")

    chat = play(scenario, script)
    assert not _FORBIDDEN.search(sent_beside_ours(chat))
    assert "\x1b[2J\x1b[H" not in "".join(chat.terminal.writes)


def test_bytes_of_errors_file_names_and_messages_are_marks(media: Path, tmp_path: Path) -> None:
    named = tmp_path / "a\x1b]0;pwned\x07\u202e.png"
    named.symlink_to(media / "picture.png")

    async def scenario(chat: Chat) -> None:
        chat.type("Hello\r")
        await chat.see("error: no")
        chat.type("\x15")
        chat.paste("/export " + str(tmp_path / "no\x1b[2J" / "x.md"))
        await chat.see("> /export")
        chat.type("\x15/image " + str(tmp_path) + "/a\t")
        await chat.see("> /image")
        chat.type("\x15")
        chat.paste(str(named))
        await chat.see("[y/N]")
        chat.type("y")
        await chat.see("[1] a␛]0;pwned␇<U+202E>.png")

    chat = play(scenario, [InputError("no\x1b]0;pwned\x07 \x9b2J; go on")])
    assert not _FORBIDDEN.search(sent_beside_ours(chat))


def test_an_address_is_not_fetched() -> None:
    async def scenario(chat: Chat) -> None:
        chat.type("/image http://example.org/x.png\r")
        await chat.see("is not fetched")

    play(scenario)
