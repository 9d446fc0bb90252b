"""Playing a recording back."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from gemma_mlx.errors import InputError
from gemma_mlx.inputs.sound_stream import SAMPLE_RATE_HZ
from gemma_mlx.terminal.capture.microphone import sound_module
from gemma_mlx.terminal.capture.silenced import libraries_silenced


def play(samples: NDArray[np.float32]) -> None:
    """Begins to play [n] samples at 16 kHz, in place of what is playing. InputError where nothing can be played."""
    sounddevice = sound_module()
    try:
        with libraries_silenced():
            sounddevice.play(samples, SAMPLE_RATE_HZ)
    except (sounddevice.PortAudioError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise InputError(f"the recording cannot be played ({reason}); choose an output in the settings") from error


def stop_playing() -> None:
    """Ends what `play` began; without effect where nothing plays."""
    sound_module().stop()
