"""/mic on the screen, with a recording that does what the test says."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest

from benchmarks.scripted import spoken
from tests.terminal.screen.terminal import WAIT_S, Chat, play
from tests.terminal.screen.test_recording import Spoken


@pytest.fixture(autouse=True)
def microphone(monkeypatch: pytest.MonkeyPatch) -> Spoken:
    """Whatever is recorded."""
    recording = Spoken()
    monkeypatch.setattr("gemma_mlx.terminal.screen.speaking.Recorder", lambda device: recording)
    return recording


def test_a_second_mic_is_refused_until_the_first_is_done() -> None:
    async def scenario(chat: Chat) -> None:
        chat.type("/mic\r/mic\r")
        await chat.see("error: one /mic at a time")
        await chat.see("Enter ends, Esc drops")
        chat.type("\x1b")
        await chat.see(lambda text: "Esc drops" not in text and not chat.screen.speaking)
        chat.type("Hello\r")
        await chat.answered("Yes.")
        chat.type("/mic\r")
        await chat.see("Enter ends, Esc drops")

    play(scenario, spoken("Yes."))


def written_down_until_stopped(_gemma: Any, _samples: Any, stopped: Callable[[], bool]) -> str | None:
    end_s = time.monotonic() + 2 * WAIT_S
    while not stopped() and time.monotonic() < end_s:
        time.sleep(0.01)
    return None if stopped() else "never said"


@pytest.mark.parametrize("leaves", [False, True])
def test_speech_that_is_written_down_is_shown_and_stopped(
    leaves: bool, microphone: Spoken, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gemma_mlx.tasks.dictation.heard_until", lambda *_: 0)
    monkeypatch.setattr("gemma_mlx.tasks.dictation.dictate", written_down_until_stopped)

    async def scenario(chat: Chat) -> None:
        chat.type("/mic dictate\r")
        await chat.see("Enter ends, Esc drops")
        microphone.ended_by = "key"
        await chat.see("Enter keeps")
        chat.type("\r")
        await chat.see("writing down · scripted")
        if leaves:
            chat.type("\x04")
            return
        chat.type("\x03")
        await chat.see("stopped; the speech is not written down")
        await chat.see(lambda text: "writing down" not in text)
        chat.type("Hello\r")
        await chat.answered("Yes.")

    play(scenario, spoken("Yes."), leave=not leaves)
