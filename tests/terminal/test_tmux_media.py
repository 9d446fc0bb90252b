"""Speech and video given to the chat on a real terminal."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from benchmarks.virtual_microphone import VirtualMicrophone
from gemma_mlx.home import samples_folder
from gemma_mlx.inputs.sound_stream import SAMPLE_RATE_HZ
from gemma_mlx.inputs.waveform import read_waveform
from tests.inputs.clips import clip, numbered
from tests.programs import VIRTUAL_MICROPHONE, require
from tests.terminal.conftest import OpenChat
from tests.terminal.kept import KeptFiles
from tests.terminal.tmux import Chat

DIGITS = "4 7 1"
"""What is spoken in speech.wav."""


def test_a_sound_and_a_video_are_heard_and_seen(open_chat: OpenChat, tmp_path: Path, own_home: Path) -> None:
    video = tmp_path / "two seconds.mp4"
    video.write_bytes(clip(numbered(20), fps=10))
    chat = open_chat()
    chat.wait_until_ready()
    chat.enter(f"/audio {samples_folder() / 'speech.wav'}")
    chat.wait_for(lambda _: len(chat.chips) == 1)
    chat.ask("Transcribe the following speech segment in its original language.", DIGITS)
    chat.enter(f"/video {video}")
    chat.wait_for("[1] two seconds.mp4 96x64 2.0 s, 2 of 20 frames, one every 1.00 s -> 120 tokens")
    chat.enter("What is in the video?")
    kept = KeptFiles(own_home)
    chat.wait_for(lambda _: len(kept.answered) == 2 and chat.is_ready)
    chat.leave()
    assert sorted(path.suffix for path in kept.media) == [".mp4", ".wav"]
    assert kept.answered[0]["figures"]["audio_tokens"] > 25
    assert kept.answered[1]["figures"]["video_tokens"] == 120
    assert kept.open_to_others == []


@pytest.fixture
def microphone() -> Iterator[VirtualMicrophone]:
    require(*VIRTUAL_MICROPHONE)
    with VirtualMicrophone() as started:
        yield started


def test_what_is_spoken_is_reviewed_and_goes_out_as_sound_or_as_text(
    open_chat: OpenChat, microphone: VirtualMicrophone, own_home: Path
) -> None:
    chat = open_chat(environment=microphone.environment)
    chat.wait_until_ready()
    speak(chat, microphone, "/mic direct")
    assert "then silence" in "\n".join(chat.rows)
    chat.keys("Enter")
    chat.wait_for(lambda _: len(chat.chips) == 1)
    assert chat.chips[0].startswith("[1] speech ")
    chat.ask("Transcribe the following speech segment in its original language.", DIGITS)
    speak(chat, microphone, "/mic dictate")
    chat.type("p")
    chat.wait_for(lambda _: "playing" in "\n".join(chat.rows))
    chat.keys("Enter")
    chat.wait_for(lambda _: chat.rows[-2] == f"> {DIGITS}")
    chat.keys("C-c")
    chat.enter("/mic")
    chat.wait_for(lambda _: "Esc drops" in "\n".join(chat.rows))
    chat.keys("Escape")
    chat.wait_for(lambda _: "Esc drops" not in "\n".join(chat.rows))
    assert chat.chips == []
    chat.leave()
    kept = KeptFiles(own_home)
    assert kept.kinds == ["asked", "answered"]
    [recording] = kept.media
    assert abs(len(read_waveform(recording)) / SAMPLE_RATE_HZ - 2) < 1.5
    assert kept.open_to_others == []


def speak(chat: Chat, microphone: VirtualMicrophone, command: str) -> None:
    """Speaks the digits; returns when the review has begun."""
    chat.enter(command)
    chat.wait_for(lambda _: "● 00:0" in "\n".join(chat.rows))
    silence = np.zeros(SAMPLE_RATE_HZ // 2, np.float32)
    player = microphone.play(np.concatenate([silence, read_waveform(samples_folder() / "speech.wav"), silence]))
    try:
        chat.wait_for(lambda _: "Enter keeps" in "\n".join(chat.rows))
    finally:
        player.kill()
        player.wait()
