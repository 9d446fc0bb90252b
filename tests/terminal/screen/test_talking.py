"""A chat on the screen, typed and read."""

from __future__ import annotations

import time
from threading import Event
from typing import Any

import pytest

from benchmarks.scripted import Script, ScriptedGemma, spoken
from gemma_mlx import load
from gemma_mlx.errors import CheckpointError, InputError
from gemma_mlx.home import miniature_folder, samples_folder
from gemma_mlx.tasks.conversation import Conversation
from tests.terminal.screen.terminal import Chat, play


def test_a_message_is_answered_above_the_input_line() -> None:
    async def scenario(chat: Chat) -> None:
        chat.type("Hello\r")
        await chat.see("first 0.00 s")
        above, _, below = chat.text.partition("Good day to you.")
        assert "> Hello" in above
        assert below.split("\n")[-2:][0].startswith(">")
        assert "scripted" in below
        assert "context" in below

    chat = play(scenario, spoken("Good day to you."))
    assert chat.asked == ["Hello"]


def test_nothing_but_the_talk_is_left_on_the_screen_when_it_ends() -> None:
    async def scenario(chat: Chat) -> None:
        chat.type("Hello\r")
        await chat.see("first 0.00 s")
        chat.type("\x04")

    chat = play(scenario, spoken("Good day."), leave=False)
    assert chat.text.endswith("Good day.")


def test_what_is_typed_while_the_model_loads_is_sent_when_it_is_loaded() -> None:
    loaded, gemma = Event(), ScriptedGemma([spoken("One."), spoken("Two.")])

    def begin(_: Any) -> Conversation:
        loaded.wait(20)
        return Conversation(gemma)

    async def scenario(chat: Chat) -> None:
        await chat.see("loading")
        chat.type("first\rsecond\r")
        await chat.see("[waits] second")
        assert chat.asked == []
        loaded.set()
        await chat.see("Two.")

    assert play(scenario, begin=begin, gemma=gemma).asked == ["first", "second"]


def test_a_model_that_cannot_be_loaded_is_one_line_and_the_end() -> None:
    typed = Event()

    def begin(_: Any) -> Conversation:
        typed.wait(20)
        raise CheckpointError("no weights; convert it again")

    async def scenario(chat: Chat) -> None:
        chat.type("/stats\rHello\r")
        await chat.see("[waits] Hello")
        typed.set()
        await chat.see("error: no weights; convert it again")

    assert play(scenario, begin=begin, leave=False).screen.exit_code == 1


def test_another_model_that_cannot_be_loaded_leaves_the_one_before() -> None:
    gemma = ScriptedGemma([spoken("One.")])

    def only_the_first(folder: str, *_: Any) -> Conversation:
        if folder != str(gemma.folder):
            raise CheckpointError("no weights there")
        return Conversation(gemma)

    async def scenario(chat: Chat) -> None:
        chat.type("/model other\r")
        await chat.see("error: no weights there")
        chat.type("Hello\r")
        await chat.answered("One.")

    assert play(scenario, gemma=gemma, with_model=only_the_first).screen.exit_code == 0


def test_no_model_at_all_is_the_end_and_says_both_reasons() -> None:
    def none(folder: str, *_: Any) -> Conversation:
        raise CheckpointError(f"no weights in {folder}")

    async def scenario(chat: Chat) -> None:
        chat.type("/model other\rHello\r")
        await chat.see(
            "error: no weights in other; nor can the model of before be loaded again: no weights in scripted"
        )

    assert play(scenario, with_model=none, leave=False, columns=150).screen.exit_code == 1


def test_typing_is_seen_and_a_message_waits_while_an_answer_streams() -> None:
    more = Event()

    async def scenario(chat: Chat) -> None:
        chat.type("one\r")
        await chat.see("Begun")
        chat.type("two\r")
        await chat.see("[waits] two")
        chat.type("thr")
        await chat.see("> thr")
        more.set()
        await chat.see("Second.")
        await chat.see(lambda text: "[waits]" not in text and "> thr" in text)
        chat.type("ee\r")
        await chat.see("Third.")

    chat = play(scenario, [*spoken("Begun "), more, *spoken("and ended.")], spoken("Second."), spoken("Third."))
    assert chat.asked == ["one", "two", "three"]
    assert "Begun and ended." in chat.text


def test_a_message_that_waits_can_be_taken_back() -> None:
    more = Event()

    async def scenario(chat: Chat) -> None:
        chat.type("one\r")
        await chat.see("Begun")
        chat.type("two\rthree\r")
        await chat.see("[waits] three")
        chat.type("\x7f")
        await chat.see(lambda text: "[waits] three" not in text)
        more.set()
        await chat.see("Second.")

    assert play(scenario, [*spoken("Begun "), more], spoken("Second.")).asked == ["one", "two"]


def test_an_unexpected_exception_is_one_line_and_the_chat_goes_on() -> None:
    async def scenario(chat: Chat) -> None:
        chat.type("one\r")
        await chat.see("error: RuntimeError: broke\x1b".replace("\x1b", "␛"))
        await chat.see("> one\nscripted")
        chat.type("\x15two\r")
        await chat.see("Second.")

    chat = play(scenario, [*spoken("Begun"), RuntimeError("broke\x1b[2J")], spoken("Second."))
    assert "Begun" in chat.text
    assert "Traceback" not in chat.text


def test_an_expected_error_gives_the_message_back() -> None:
    async def scenario(chat: Chat) -> None:
        chat.type("one\r")
        await chat.see("error: too long; shorten it")
        await chat.see("> one")
        chat.type("\r")
        await chat.see("Second.")

    assert play(scenario, [InputError("too long; shorten it")], spoken("Second.")).asked == ["one", "one"]


def test_thoughts_fold_into_one_line_and_can_be_shown() -> None:
    more = Event()

    async def scenario(chat: Chat) -> None:
        chat.type("one\r")
        await chat.see("thinking, 3 tokens")
        more.set()
        await chat.see("thought for 3 tokens")
        await chat.see("Forty.")
        assert "Let me" not in chat.text
        chat.type("/thoughts\r")
        await chat.see("Let me see.")

    play(
        scenario,
        [("thought", "Let "), ("thought", "me "), ("thought", "see."), more, ("thought", ""), *spoken("Forty.")],
    )


def test_an_answer_that_is_cut_while_it_thinks_says_so_and_its_thoughts_can_be_shown() -> None:
    scripts: list[Script] = [spoken("One."), [("thought", "Let "), ("thought", "me "), *spoken("never said")]]

    async def scenario(chat: Chat) -> None:
        chat.type("one\r")
        await chat.answered("One.")
        chat.type("two\r")
        await chat.see("the answer was cut after 2 tokens")
        await chat.see("the message was not kept, and waits to be sent again")
        chat.type("\x15/thoughts\r")
        await chat.see("Let me")

    chat = play(scenario, gemma=ScriptedGemma(scripts, max_tokens=2))
    assert "never" not in chat.text


def test_screen_is_drawn_a_few_times_a_second_however_fast_tokens_come() -> None:
    gemma = ScriptedGemma([spoken("word " * 300)], interval_s=1 / 400)

    async def scenario(chat: Chat) -> None:
        chat.type("go\r")
        await chat.see("answering")
        began_s, sent = time.monotonic(), len(chat.terminal.writes)
        await chat.see("tokens/s")
        assert len(chat.terminal.writes) - sent < 30 * (time.monotonic() - began_s) + 10

    play(scenario, gemma=gemma)


@pytest.mark.parametrize(("words", "late"), [(3, False), (700, True)])
def test_a_sound_that_stands_too_late_is_told_when_it_is_sent(words: int, late: bool) -> None:
    def begin(_: Any) -> Conversation:
        gemma = load(miniature_folder())
        return Conversation(gemma, sampling=gemma.sampling(temperature=0))

    async def scenario(chat: Chat) -> None:
        chat.type(f"/audio {samples_folder() / 'speech.wav'}\r")
        await chat.see("[1] speech.wav")
        chat.type("word " * words + "\r")
        await chat.see("the sound ends at token" if late else "first ")

    chat = play(scenario, begin=begin)
    assert ("the sound ends at token" in chat.text) is late


def test_no_message_overtakes_one_whose_sound_is_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    looked, gemma = Event(), ScriptedGemma([spoken("One."), spoken("Two.")])

    def heard_until(*_: Any) -> int:
        looked.wait(20)
        return 0

    monkeypatch.setattr("gemma_mlx.tasks.dictation.heard_until", heard_until)

    async def scenario(chat: Chat) -> None:
        chat.type(f"/audio {samples_folder() / 'speech.wav'}\r")
        await chat.see("[1] speech.wav")
        chat.type("first\rsecond\r")
        await chat.see("[waits] second")
        assert chat.asked == []
        looked.set()
        await chat.see("Two.")

    assert play(scenario, gemma=gemma).asked == ["first", "second"]


def test_a_message_that_is_taken_back_while_another_is_answered_is_not_sent() -> None:
    more = Event()
    gemma = ScriptedGemma([[*spoken("Begun "), more, *spoken("and ended.")], spoken("Never.")])

    async def scenario(chat: Chat) -> None:
        chat.type("one\rtwo\r")
        await chat.see("[waits] two")
        chat.type("/drop\r")
        await chat.see("taken back: two")
        more.set()
        await chat.answered("and ended.")

    assert play(scenario, gemma=gemma).asked == ["one"]
