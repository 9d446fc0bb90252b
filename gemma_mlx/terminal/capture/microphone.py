"""The microphone as a stream of samples, through PortAudio (sounddevice, imported only in this folder)."""

from __future__ import annotations

import queue
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gemma_mlx.errors import GemmaWarning, InputError
from gemma_mlx.inputs.sound_stream import SAMPLE_RATE_HZ

BLOCK_S = 0.1
GONE_S = 2.5
"""A microphone that gives nothing for so long is not there any more; one that wakes up may take two seconds."""
_WAIT_S = 0.2
_PERMISSION = "allow this terminal the microphone in System Settings > Privacy & Security, and plug one in"


class MicrophoneGoneError(InputError):
    """The microphone went away while it was listened to; what was heard until then has been given."""


@dataclass(frozen=True)
class InputDevice:
    """Something that can be listened to."""

    index: int
    name: str
    default: bool


def sound_module() -> Any:
    """sounddevice. InputError where it or PortAudio is missing."""
    try:
        import sounddevice
    except (ImportError, OSError) as error:
        reason = " ".join(str(error).split())
        raise InputError(f"no sound devices here ({reason}); install PortAudio: brew install portaudio") from error
    return sounddevice


def input_devices() -> list[InputDevice]:
    """All that can be listened to. InputError where there is nothing."""
    sounddevice = sound_module()
    try:
        chosen = sounddevice.default.device[0]
        found = [
            InputDevice(index, str(device["name"]), index == chosen)
            for index, device in enumerate(sounddevice.query_devices())
            if device["max_input_channels"] > 0
        ]
    except (sounddevice.PortAudioError, ValueError) as error:
        raise _unusable(error) from error
    if not found:
        raise InputError(f"there is no microphone; {_PERMISSION}")
    return found


def input_device(which: str) -> InputDevice:
    """The one with this number or, with this in its name, the first. InputError where there is none."""
    devices = input_devices()
    for device in devices:
        if str(device.index) == which:
            return device
    for device in devices:
        if which.casefold() in device.name.casefold():
            return device
    names = ", ".join(f"{device.index} {device.name}" for device in devices)
    raise InputError(f"there is no input device {which!r}; choose one of {names}")


def _warn(line: str) -> None:
    warnings.warn(line, GemmaWarning, stacklevel=3)


def microphone_blocks(
    stopped: Callable[[], bool], device: int | None = None, tell: Callable[[str], None] = _warn
) -> Iterator[NDArray[np.float32]]:
    """Samples at 16 kHz as they are spoken, until `stopped()`. What was recorded until then is given, all of it.

    InputError where there is no microphone or it may not be used, and at the end where it gave nothing but zeros,
    which is what macOS has for a program that may not listen; MicrophoneGoneError at the end where it went away. `tell`
    gets a line where the machine was too busy to take all that was spoken.
    """
    sounddevice = sound_module()
    heard: queue.SimpleQueue[tuple[NDArray[np.float32], bool]] = queue.SimpleQueue()

    def enqueue(samples: NDArray[np.float32], frames: int, times: Any, status: Any) -> None:
        heard.put((samples[:, 0].copy(), bool(status)))

    stream, rate_hz = _opened(sounddevice, device, enqueue)
    at_16_khz = _resampler(rate_hz)
    silent, overflows, samples_heard = True, 0, 0
    last_s = time.monotonic()
    gone = False
    try:
        while not stopped() and not gone:
            try:
                block, overflow = heard.get(timeout=_WAIT_S)
            except queue.Empty:
                gone = not _active(sounddevice, stream) or time.monotonic() - last_s > GONE_S
                continue
            last_s = time.monotonic()
            silent = silent and not block.any()
            overflows += overflow
            samples_heard += len(block)
            yield at_16_khz(block, False)
    finally:
        _close(sounddevice, stream)
    while not heard.empty():
        block, overflow = heard.get()
        silent = silent and not block.any()
        overflows += overflow
        samples_heard += len(block)
        yield at_16_khz(block, False)
    rest = at_16_khz(np.zeros(0, dtype=np.float32), True)
    if len(rest):
        yield rest
    if overflows:
        tell(f"{overflows} blocks of sound came too fast for this machine and have gaps; close other programs")
    if gone:
        heard_s = samples_heard / rate_hz
        raise MicrophoneGoneError(f"the microphone went away after {heard_s:.1f} s; what was heard is kept")
    if silent:
        raise InputError(f"the microphone gave no sound at all; {_PERMISSION}")


def _opened(sounddevice: Any, device: int | None, callback: Callable[..., None]) -> tuple[Any, int]:
    """A running stream and its rate: 16 kHz or, where the device refuses that, its own."""
    try:
        try:
            return _started(sounddevice, device, SAMPLE_RATE_HZ, callback), SAMPLE_RATE_HZ
        except sounddevice.PortAudioError:
            own_hz = int(sounddevice.query_devices(device, "input")["default_samplerate"])
            if own_hz == SAMPLE_RATE_HZ:
                raise
            return _started(sounddevice, device, own_hz, callback), own_hz
    except (sounddevice.PortAudioError, ValueError) as error:
        raise _unusable(error) from error


def _started(sounddevice: Any, device: int | None, rate_hz: int, callback: Callable[..., None]) -> Any:
    stream = sounddevice.InputStream(
        samplerate=rate_hz,
        channels=1,
        dtype="float32",
        blocksize=round(rate_hz * BLOCK_S),
        device=device,
        callback=callback,
    )
    try:
        stream.start()
    except sounddevice.PortAudioError:
        stream.close()
        raise
    return stream


def _active(sounddevice: Any, stream: Any) -> bool:
    try:
        return bool(stream.active)
    except sounddevice.PortAudioError:
        return False


def _close(sounddevice: Any, stream: Any) -> None:
    """A device that is gone may refuse to be closed, and that is nobody's concern any more."""
    for end in (stream.stop, stream.close):
        with suppress(sounddevice.PortAudioError):
            end()


def _resampler(rate_hz: int) -> Callable[[NDArray[np.float32], bool], NDArray[np.float32]]:
    """From `rate_hz` to 16 kHz, block by block; the second argument says that no more follows."""
    if rate_hz == SAMPLE_RATE_HZ:
        return lambda block, last: block
    import soxr

    stream = soxr.ResampleStream(rate_hz, SAMPLE_RATE_HZ, 1, dtype="float32")
    return lambda block, last: stream.resample_chunk(block, last=last)


def _unusable(error: Exception) -> InputError:
    reason = " ".join(str(error).split())
    return InputError(f"the microphone cannot be used ({reason}); {_PERMISSION}")
