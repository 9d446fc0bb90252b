"""The microphone as a stream of samples, through PortAudio (sounddevice, imported only here)."""

from __future__ import annotations

import queue
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gemma_mlx.errors import InputError
from gemma_mlx.inputs.sound_stream import SAMPLE_RATE_HZ

_BLOCK_SAMPLES = SAMPLE_RATE_HZ // 10
_WAIT_S = 0.2
_PERMISSION = "allow this terminal the microphone in System Settings > Privacy & Security, and plug one in"


def microphone_blocks(stopped: Callable[[], bool]) -> Iterator[NDArray[np.float32]]:
    """Samples at 16 kHz as they are spoken, until `stopped()`. What was recorded until then is given, all of it.

    InputError where there is no microphone or it may not be used, and at the end where it gave nothing but zeros,
    which is what macOS has for a program that may not listen.
    """
    try:
        import sounddevice
    except (ImportError, OSError) as error:
        reason = " ".join(str(error).split())
        raise InputError(f"cannot record here ({reason}); install PortAudio: brew install portaudio") from error
    heard: queue.SimpleQueue[NDArray[np.float32]] = queue.SimpleQueue()

    def enqueue(samples: NDArray[np.float32], frames: int, times: Any, status: Any) -> None:
        heard.put(samples[:, 0].copy())

    try:
        stream = sounddevice.InputStream(
            samplerate=SAMPLE_RATE_HZ, channels=1, dtype="float32", blocksize=_BLOCK_SAMPLES, callback=enqueue
        )
        stream.start()
    except (sounddevice.PortAudioError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise InputError(f"the microphone cannot be used ({reason}); {_PERMISSION}") from error
    silent = True
    try:
        while not stopped():
            try:
                block = heard.get(timeout=_WAIT_S)
            except queue.Empty:
                continue
            silent = silent and not block.any()
            yield block
    finally:
        stream.stop()
        stream.close()
    while not heard.empty():
        block = heard.get()
        silent = silent and not block.any()
        yield block
    if silent:
        raise InputError(f"the microphone gave no sound at all; {_PERMISSION}")
