"""Devices of all kinds, with a module in the place of sounddevice that gives blocks at the pace of a real one."""

from __future__ import annotations

import sys
import threading
import time
from typing import Any

import numpy as np
import pytest
import soxr

from gemma_mlx.errors import InputError
from gemma_mlx.inputs.sound_stream import SAMPLE_RATE_HZ
from gemma_mlx.terminal.capture.microphone import (
    MicrophoneGoneError,
    input_device,
    input_devices,
    microphone_blocks,
)
from gemma_mlx.terminal.capture.playback import play

Samples = Any
TONE = (np.sin(np.arange(60_000) / 9) * 0.3).astype(np.float32)


class PortAudioError(Exception):
    pass


class Sound:
    """A sounddevice with a microphone of `rate_hz` alone, that hears TONE and is unplugged after `blocks` of it."""

    PortAudioError = PortAudioError

    def __init__(
        self, rate_hz: int = SAMPLE_RATE_HZ, blocks: int = 100, gone: str = "quiet", busy_at: int = -1
    ) -> None:
        self.rate_hz, self.blocks, self.gone, self.busy_at = rate_hz, blocks, gone, busy_at
        self.default = type("Default", (), {"device": (2, 1)})
        self.InputStream = self._opened
        self.open_streams = 0
        self.devices = [
            {"name": "MacBook Speakers", "max_input_channels": 0, "default_samplerate": 48_000.0},
            {"name": "USB Mic", "max_input_channels": 2, "default_samplerate": 44_100.0},
            {"name": "MacBook Microphone", "max_input_channels": 1, "default_samplerate": float(rate_hz)},
        ]

    def query_devices(self, device: int | None = None, kind: str | None = None) -> Any:
        return self.devices if kind is None else self.devices[2 if device is None else device]

    def play(self, samples: Samples, rate_hz: int) -> None:
        raise PortAudioError("Error querying device -1")

    def _opened(self, **options: Any) -> Any:
        if options["samplerate"] != self.rate_hz:
            raise PortAudioError("Invalid sample rate [PaErrorCode -9997]")
        self.open_streams += 1
        return Stream(self, **options)


class Stream:
    def __init__(self, sound: Sound, *, samplerate: int, blocksize: int, callback: Any, **options: Any) -> None:
        self._sound, self._callback, self._block, self._rate_hz = sound, callback, blocksize, samplerate
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._record)

    @property
    def active(self) -> bool:
        if self._ended.is_set() and self._sound.gone == "error":
            raise PortAudioError("Unanticipated host error")
        return not (self._ended.is_set() and self._sound.gone == "inactive")

    def start(self) -> None:
        if self._sound.gone == "start":
            raise PortAudioError("Device unavailable")
        self._thread.start()

    def _record(self) -> None:
        begun_s = time.monotonic()
        for index in range(min(self._sound.blocks, len(TONE) // self._block)):
            due_s = begun_s + (index + 1) * self._block / self._rate_hz
            if self._ended.wait(max(0.0, due_s - time.monotonic())):
                return
            samples = TONE[index * self._block : (index + 1) * self._block, None]
            self._callback(samples, len(samples), None, "input overflow" if index == self._sound.busy_at else "")
        self._ended.set()

    def stop(self) -> None:
        self._ended.set()
        if self._sound.gone != "quiet":
            raise PortAudioError("Internal PortAudio error")
        self._thread.join()

    def close(self) -> None:
        self._sound.open_streams -= 1


def put(monkeypatch: pytest.MonkeyPatch, sound: Sound) -> Sound:
    monkeypatch.setitem(sys.modules, "sounddevice", sound)  # type: ignore[arg-type]
    return sound


def after(blocks: int, heard: list[Samples]) -> Any:
    return lambda: len(heard) >= blocks


def test_a_device_that_refuses_16_khz_is_heard_at_its_own_rate(monkeypatch: pytest.MonkeyPatch) -> None:
    sound = put(monkeypatch, Sound(rate_hz=44_100))
    heard: list[Samples] = []
    heard.extend(microphone_blocks(after(6, heard)))
    samples = np.concatenate(heard)
    blocks = round(len(samples) / 1600)
    expected = soxr.resample(TONE[: blocks * 4410], 44_100, SAMPLE_RATE_HZ)
    assert blocks >= 5
    assert len(samples) == len(expected)
    assert np.abs(samples - expected).max() < 1e-4
    assert sound.open_streams == 0


@pytest.mark.parametrize("gone", ["inactive", "error", "quiet"])
def test_a_microphone_that_vanishes_leaves_what_was_heard_and_a_line(
    monkeypatch: pytest.MonkeyPatch, gone: str
) -> None:
    sound = put(monkeypatch, Sound(blocks=3, gone=gone))
    monkeypatch.setattr("gemma_mlx.terminal.capture.microphone.GONE_S", 0.5)
    blocks = microphone_blocks(lambda: False)
    heard = [next(blocks) for _ in range(3)]
    with pytest.raises(MicrophoneGoneError, match=r"^the microphone went away after 0\.3 s; what was heard is kept$"):
        next(blocks)
    assert np.array_equal(np.concatenate(heard), TONE[:4800])
    assert sound.open_streams == 0


def test_a_microphone_that_does_not_start_is_one_line_and_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    sound = put(monkeypatch, Sound(gone="start"))
    with pytest.raises(InputError, match=r"cannot be used \(Device unavailable\); allow .*Privacy"):
        list(microphone_blocks(lambda: False))
    assert sound.open_streams == 0


def test_what_came_too_fast_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    put(monkeypatch, Sound(busy_at=1))
    told: list[str] = []
    heard: list[Samples] = []
    heard.extend(microphone_blocks(after(3, heard), tell=told.append))
    assert told == ["1 blocks of sound came too fast for this machine and have gaps; close other programs"]


def test_devices_are_listed_and_chosen_by_number_or_part_of_a_name(monkeypatch: pytest.MonkeyPatch) -> None:
    sound = put(monkeypatch, Sound())
    assert [(device.index, device.default) for device in input_devices()] == [(1, False), (2, True)]
    assert [input_device(which).index for which in ("1", "2", "usb", "macbook")] == [1, 2, 1, 2]
    with pytest.raises(InputError, match="'0'; choose one of 1 USB Mic, 2 MacBook Microphone"):
        input_device("0")
    sound.devices = sound.devices[:1]
    with pytest.raises(InputError, match="there is no microphone"):
        input_devices()


def test_no_loudspeaker_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    put(monkeypatch, Sound())
    with pytest.raises(InputError, match=r"cannot be played \(Error querying device -1\)"):
        play(TONE)
