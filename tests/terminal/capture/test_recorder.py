"""A recording and how it ends, with blocks of samples in the place of a microphone."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator

import numpy as np
import pytest
from numpy.typing import NDArray

from gemma_mlx.errors import InputError
from gemma_mlx.home import samples_folder
from gemma_mlx.inputs.sound_stream import SAMPLE_RATE_HZ
from gemma_mlx.inputs.waveform import read_waveform
from gemma_mlx.terminal.capture.microphone import MicrophoneGoneError
from gemma_mlx.terminal.capture.recorder import LONGEST_S, Blocks, Recorder

BLOCK = SAMPLE_RATE_HZ // 10
NOISE = np.random.default_rng(0).normal(0, 0.001, 40 * SAMPLE_RATE_HZ).astype(np.float32)


def spoken(samples: NDArray[np.float32], failure: Exception | None = None) -> Blocks:
    """A microphone that hears `samples`, and then fails or goes on with nothing new."""

    def blocks(stopped: Callable[[], bool]) -> Iterator[NDArray[np.float32]]:
        for start in range(0, len(samples), BLOCK):
            if stopped():
                return
            yield samples[start : start + BLOCK]
        if failure is not None:
            raise failure

    return blocks


def ended(blocks: Blocks) -> Recorder:
    recorder = Recorder(blocks=blocks)
    recorder.start()
    recorder.wait()
    return recorder


def test_silence_after_speech_ends_it() -> None:
    speech = read_waveform(samples_folder() / "speech.wav")
    sound = np.concatenate([NOISE[: SAMPLE_RATE_HZ // 2], speech, NOISE[: 5 * SAMPLE_RATE_HZ]])
    recorder = ended(spoken(sound))
    assert recorder.ended_by == "silence"
    after_s = recorder.elapsed_s - 0.5 - len(speech) / SAMPLE_RATE_HZ
    assert 0.5 < after_s < 2.5
    assert np.array_equal(recorder.samples, sound[: len(recorder.samples)])


def test_silence_before_speech_does_not() -> None:
    recorder = ended(spoken(NOISE[: 8 * SAMPLE_RATE_HZ]))
    assert recorder.ended_by == "key"
    assert recorder.elapsed_s == 8


def test_it_is_full_after_what_the_model_hears() -> None:
    recorder = ended(spoken(NOISE))
    assert recorder.ended_by == "full"
    assert (len(recorder.samples), recorder.left_s) == (LONGEST_S * SAMPLE_RATE_HZ, 0)


def test_a_key_ends_it_with_all_that_was_heard() -> None:
    heard = threading.Event()

    def blocks(stopped: Callable[[], bool]) -> Iterator[NDArray[np.float32]]:
        yield NOISE[:BLOCK]
        heard.set()
        while not stopped():
            pass
        yield NOISE[BLOCK : 2 * BLOCK]

    recorder = Recorder(blocks=blocks)
    recorder.start()
    assert heard.wait(5)
    assert recorder.ended_by is None
    recorder.stop()
    recorder.wait()
    assert recorder.ended_by == "key"
    assert np.array_equal(recorder.samples, NOISE[: 2 * BLOCK])


@pytest.mark.parametrize(
    ("failure", "ended_by"),
    [
        (MicrophoneGoneError("the microphone went away after 1.0 s"), "unplugged"),
        (InputError("the microphone cannot be used"), "failed"),
        (OSError("no such device"), "failed"),
    ],
)
def test_what_goes_wrong_is_one_line_and_what_was_heard_stays(failure: Exception, ended_by: str) -> None:
    recorder = ended(spoken(NOISE[:SAMPLE_RATE_HZ], failure))
    assert recorder.ended_by == ended_by
    assert len(recorder.samples) == SAMPLE_RATE_HZ
    assert recorder.problem is not None
    assert "\n" not in recorder.problem


def test_the_level_follows_loudness_and_falls_slowly() -> None:
    loud = np.full(BLOCK, 0.5, dtype=np.float32)
    recorder = Recorder(blocks=spoken(NOISE))
    recorder._take(NOISE[:BLOCK])
    quiet_level = recorder.level
    recorder._take(loud)
    loud_level = recorder.level
    recorder._take(NOISE[:BLOCK])
    assert 0 <= quiet_level < 0.1 < recorder.level < loud_level <= 1
