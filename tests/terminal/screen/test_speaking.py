"""/mic on the screen, with a recording that does what the test says."""

from __future__ import annotations

import pytest

from benchmarks.scripted import spoken
from tests.terminal.screen.terminal import Chat, play
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
