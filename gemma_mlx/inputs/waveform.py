"""A sound on disk or in memory -> mono samples at 16 kHz -> the frames of 640 samples that the model takes.

No normalisation and no cut: the samples are the file's own, and a sound of any length is read, whole, into memory.
Frames equal transformers' `Gemma4UnifiedAudioFeatureExtractor`.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from gemma_mlx.inputs.sound_stream import SAMPLE_RATE_HZ as SAMPLE_RATE_HZ
from gemma_mlx.inputs.sound_stream import WaveformSource, open_sound

SAMPLES_PER_FRAME = 640
TRAINED_SOUND_S = 30
"""The model was trained on clips up to this length (model card); longer ones are heard, but less well."""


def read_waveform(source: WaveformSource) -> NDArray[np.float32]:
    """`source` as float32 samples [n], mono (the mean of its channels), 16 kHz; n is at least 1.

    It is what `open_sound` takes. InputError where the sound is missing, empty, not a sound, cut short, without
    samples or channels, or holds a value that is not a number.
    """
    with open_sound(source) as sound:
        return np.concatenate(list(sound.blocks))


def frames(waveform: NDArray[np.float32], samples_per_frame: int = SAMPLES_PER_FRAME) -> NDArray[np.float32]:
    """[n] -> [ceil(n / samples_per_frame), samples_per_frame], the last frame filled up with zeros."""
    count = -(-len(waveform) // samples_per_frame)
    padded = np.zeros(count * samples_per_frame, dtype=np.float32)
    padded[: len(waveform)] = waveform
    return padded.reshape(count, samples_per_frame)  # [F, 640]
