"""Answers that are stopped, before their first word and after it; and what Ctrl-C does where there is none."""

from __future__ import annotations

from threading import Event
from typing import Any

import pytest

from benchmarks.scripted import Script, ScriptedGemma, spoken
from tests.terminal.screen.terminal import Chat, play


def test_ctrl_c_stops_the_answer_and_keeps_the_turn() -> None:
    more = Event()

    async def scenario(chat: Chat) -> None:
        chat.type("one\r")
        await chat.see("Begun")
        await chat.stop(more)
        await chat.see("first 0.00 s")
        chat.type("two\r")
        await chat.see("Second.")

    chat = play(scenario, [*spoken("Begun "), more, *spoken("never said")], spoken("Second."))
    assert "never said" not in chat.text
    assert chat.asked == ["one", "two"]


def stopped_while_it_thinks(more: Event) -> Script:
    """An answer that is told to stop before `more`, and gets no further than to one thought more."""
    return [("thought", "Let me"), more, ("thought", " see."), *spoken("never said")]


def test_stopped_before_the_first_word_the_message_comes_back() -> None:
    more = Event()

    async def scenario(chat: Chat) -> None:
        chat.type("one\r")
        await chat.see("thinking, 1 tokens")
        await chat.stop(more)
        await chat.see("there is no answer yet")
        await chat.see(lambda text: text.split("\n")[-2] == "> one")
        chat.type("!\r")
        await chat.see("Second.")

    chat = play(scenario, stopped_while_it_thinks(more), spoken("Second."))
    assert chat.asked == ["one", "one!"]
    assert "never" not in chat.text


def test_stopped_while_the_prompt_is_read_the_message_comes_back() -> None:
    reading, more, gemma = Event(), Event(), ScriptedGemma([spoken("never said"), spoken("Second.")])
    stream = gemma.stream

    def slowly(messages: Any, *, progress: Any = None, **options: Any) -> Any:
        def told(done: int, of: int) -> None:
            reading.set()
            more.wait(20)
            progress(done, of)

        return stream(messages, progress=told, **options)

    gemma.stream = slowly  # type: ignore[method-assign]

    async def scenario(chat: Chat) -> None:
        chat.type("one\r")
        await chat.see(lambda _: reading.is_set())
        await chat.stop(more)
        await chat.see("there is no answer yet")
        await chat.see(lambda text: text.split("\n")[-2] == "> one")
        chat.type("!\r")
        await chat.see("Second.")

    chat = play(scenario, gemma=gemma)
    assert chat.asked == ["one", "one!"]
    assert "never" not in chat.text


@pytest.mark.parametrize("again", [True, False])
def test_messages_behind_one_that_came_back_wait_for_it(again: bool) -> None:
    more = Event()

    async def scenario(chat: Chat) -> None:
        chat.type("one\r")
        await chat.see("thinking, 1 tokens")
        chat.type("two\rthree\r\x03")
        await chat.stopping()
        more.set()
        await chat.see("2 behind it wait too; Enter in an empty line sends on")
        chat.type("!\r" if again else "\x15\r")
        await chat.see("Third.")

    said = [spoken(word) for word in ("First.", "Second.", "Third.")[0 if again else 1 :]]
    chat = play(scenario, stopped_while_it_thinks(more), *said)
    assert chat.asked == ["one", *(["one!"] if again else []), "two", "three"]


def test_ctrl_c_empties_the_line_and_twice_in_an_empty_one_leaves() -> None:
    async def scenario(chat: Chat) -> None:
        chat.type("some words")
        await chat.see("> some words")
        chat.type("\x03")
        await chat.see(lambda text: "some words" not in text)
        chat.type("\x03")
        await chat.see("Ctrl-C once more")
        chat.type("\x03")

    play(scenario, leave=False)


def test_ctrl_c_again_and_again_leaves_while_the_answer_has_not_stopped_yet() -> None:
    more = Event()

    async def scenario(chat: Chat) -> None:
        chat.type("one\r")
        await chat.see("Begun")
        chat.type("two\r")
        await chat.see("[waits] two")
        chat.type("\x03\x03")
        await chat.see("Ctrl-C once more")
        chat.type("\x03")
        await chat.see(lambda text: "[waits]" not in text)
        more.set()

    chat = play(scenario, [*spoken("Begun "), more, *spoken("never said")], leave=False)
    assert chat.asked == ["one"]
    assert "Begun" in chat.text
    assert "never said" not in chat.text
    assert "1 message waited and will not be sent" in chat.text
