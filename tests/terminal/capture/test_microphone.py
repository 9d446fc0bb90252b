"""The microphone, with a module in the place of sounddevice that speaks a sample clip."""

from __future__ import annotations

import json
import signal
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from gemma_mlx.errors import InputError
from gemma_mlx.home import samples_folder
from gemma_mlx.inputs.waveform import read_waveform
from gemma_mlx.terminal.capture.microphone import microphone_blocks
from tests.terminal.conftest import Run

Samples = Any


class PortAudioError(Exception):
    pass


def fake_module(samples: Samples, after: Callable[[], None], failure: Exception | None = None) -> Any:
    """A sounddevice whose microphone hears `samples`, and then calls `after`."""

    class InputStream:
        closed = False

        active = True

        def __init__(
            self, *, samplerate: int, channels: int, dtype: str, blocksize: int, device: int | None, callback: Any
        ) -> None:
            assert (samplerate, channels, dtype, device) == (16_000, 1, "float32", None)
            if failure is not None:
                raise failure
            self._blocksize, self._callback = blocksize, callback

        def start(self) -> None:
            self._thread = threading.Thread(target=self._record)
            self._thread.start()

        def _record(self) -> None:
            for start in range(0, len(samples), self._blocksize):
                block = samples[start : start + self._blocksize, None].copy()
                self._callback(block, len(block), None, None)
                block[:] = 9  # the buffer is PortAudio's own, and written again
            after()

        def stop(self) -> None:
            self._thread.join()

        def close(self) -> None:
            InputStream.closed = True

    def query_devices(device: int | None, kind: str) -> dict[str, Any]:
        return {"default_samplerate": 16_000.0}

    return SimpleNamespace(InputStream=InputStream, PortAudioError=PortAudioError, query_devices=query_devices)


def test_all_that_was_spoken_is_given(monkeypatch: pytest.MonkeyPatch) -> None:
    samples = np.random.default_rng(0).normal(0, 0.1, 20_000).astype(np.float32)
    done = threading.Event()
    module = fake_module(samples, done.set)
    monkeypatch.setitem(sys.modules, "sounddevice", module)
    assert np.array_equal(np.concatenate(list(microphone_blocks(done.is_set))), samples)
    assert module.InputStream.closed


def test_a_microphone_that_gives_only_zeros_may_not_be_used(monkeypatch: pytest.MonkeyPatch) -> None:
    done = threading.Event()
    monkeypatch.setitem(sys.modules, "sounddevice", fake_module(np.zeros(9000, np.float32), done.set))
    with pytest.raises(InputError, match="Privacy"):
        list(microphone_blocks(done.is_set))


def test_no_microphone_is_one_line(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    failure = PortAudioError("Error querying device -1")
    monkeypatch.setitem(sys.modules, "sounddevice", fake_module(np.zeros(0, np.float32), lambda: None, failure))
    ended = run("transcribe", "--live")
    assert (ended.code, ended.out, len(ended.errors)) == (1, "", 1)
    assert "Error querying device -1" in ended.errors[0]


def test_no_portaudio_is_one_line(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sounddevice", None)
    ended = run("transcribe", "--live")
    assert (ended.code, ended.out, len(ended.errors)) == (1, "", 1)
    assert "PortAudio" in ended.errors[0]


def test_text_comes_as_one_speaks_and_ctrl_c_keeps_it(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    clip, silence = read_waveform(samples_folder() / "speech.wav"), np.zeros(32_000, np.float32)
    samples = np.concatenate([clip, silence, clip])  # the last words are not followed by a pause
    module = fake_module(samples, lambda: signal.raise_signal(signal.SIGINT))
    monkeypatch.setitem(sys.modules, "sounddevice", module)
    ended = run("transcribe", "--live", "--json")
    told = [json.loads(line) for line in ended.out.splitlines()]
    assert ended.code == 0
    assert [event["event"] for event in told] == ["started", "segment", "segment", "finished"]
    expected = Path(samples_folder() / "samples.json").read_text(encoding="utf-8")
    said = next(row["expected"] for row in json.loads(expected)["samples"] if row["file"] == "speech.wav")
    assert [event["text"] for event in told[1:3]] == [said, said]


def test_a_microphone_that_goes_away_leaves_the_last_words(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    clip = read_waveform(samples_folder() / "speech.wav")
    module = fake_module(clip, lambda: setattr(module.InputStream, "active", False))
    monkeypatch.setitem(sys.modules, "sounddevice", module)
    ended = run("transcribe", "--live")
    assert (ended.code, ended.out) == (1, "4 7 1\n")
    assert ended.errors == ["error: the microphone went away after 1.1 s; what was heard is kept"]
