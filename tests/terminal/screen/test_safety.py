"""Nothing that a model, a file's name or an error says is obeyed by the terminal."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.scripted import Script
from gemma_mlx.decoding.channels import Channel
from gemma_mlx.errors import InputError
from tests.terminal.hostile import ATTACKS, leaks
from tests.terminal.screen.terminal import Chat, play

ENTITIES = "&#27;]0;pwned&#7; &#x9b;2J &#x202e;x &#13;x &NewLine;"
ANSWER = "\n\n".join(
    [
        *ATTACKS.values(),
        *(f"```{attack}\nx{attack}\n```" for attack in ATTACKS.values()),
        *(
            f"[text{attack}](http://x/{attack}) ![{attack}](http://x/{attack}) **{attack}**"
            for attack in ATTACKS.values()
        ),
        "\n".join(["| a | b |", "|---|---|", *(f"| {attack} | `{attack}` |" for attack in ATTACKS.values())]),
        *(f"# {attack}\n> {attack}\n- {attack}\n1. {attack}\n~~~{ENTITIES}\n~~~" for attack in ATTACKS.values()),
        f"{ENTITIES} [{ENTITIES}](http://x/{ENTITIES}) $ {ENTITIES} $ <b{ENTITIES}>",
    ]
)


@pytest.mark.parametrize("size", [1, 2, 7, len(ANSWER)])
@pytest.mark.parametrize("channel", ["answer", "thought"])
def test_bytes_of_an_answer_are_marks_wherever_it_is_split(channel: Channel, size: int) -> None:
    script: Script = [(channel, ANSWER[start : start + size]) for start in range(0, len(ANSWER), size)]

    async def scenario(chat: Chat) -> None:
        chat.type("Hello\r")
        await chat.answered("The end.")
        if channel == "thought":
            chat.type("/thoughts\r")
        chat.type("/stats\r")
        await chat.see("memory 1.00 of 2.00 GB")

    chat = play(scenario, [*script, ("answer", "\n\nThe end.")])
    assert "there were no thoughts" not in chat.text
    assert leaks("".join(chat.terminal.writes)) == []


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
    assert leaks("".join(chat.terminal.writes)) == []


def test_an_address_is_not_fetched() -> None:
    async def scenario(chat: Chat) -> None:
        chat.type("/image http://example.org/x.png\r")
        await chat.see("is not fetched")

    play(scenario)
