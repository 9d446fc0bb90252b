"""A sound on disk or in memory -> mono samples at 16 kHz -> the frames of 640 samples that the model takes.

No normalisation and no cut: the samples are the file's own, and a sound of any length is read, whole, into memory
(4 bytes per sample of the file's own rate, one channel). Frames equal transformers'
`Gemma4UnifiedAudioFeatureExtractor`.
"""

from __future__ import annotations

from io import BytesIO
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from gemma_mlx.errors import InputError

SAMPLE_RATE_HZ = 16_000
SAMPLES_PER_FRAME = 640

WaveformSource = Path | str | bytes | BinaryIO | tuple[NDArray[Any], int]

_FIRST_BYTES = 12
_BLOCK_SAMPLES = 1 << 18
_LOWEST_RATE_HZ, _HIGHEST_RATE_HZ = 1_000, 768_000  # A damaged header can claim any; 1 Hz would grow 16,000 times.
_INTEGER_SCALE = {"int16": 1 / (1 << 15), "int32": 1 / (1 << 31)}  # As soundfile scales them.


def read_waveform(source: WaveformSource) -> NDArray[np.float32]:
    """`source` as float32 samples [n], mono (the mean of its channels), 16 kHz; n is at least 1.

    An array comes with its rate in Hz and is [samples] or [samples, channels]: floating point as it is, int16 and
    int32 scaled to -1..1. InputError where the sound is missing, empty, not a sound, cut short, without samples or
    channels, or holds a value that is not a number.
    """
    if isinstance(source, tuple):
        return _resampled(_mono_array(source[0]), source[1], "the sound")
    if not isinstance(source, (str, Path)):
        data = source if isinstance(source, bytes) else source.read()
        return _read(_Bytes(data), data[:_FIRST_BYTES], "the sound")
    path = Path(source)
    try:
        # Handed on as a descriptor: by its name, libsndfile would take a file without a header for what the name says.
        with path.open("rb", buffering=0) as file:
            start = file.read(_FIRST_BYTES)
            file.seek(0)
            return _read(file.fileno(), start, path.name)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise InputError(f"cannot open the sound {path}: {reason}; check the path") from error


class _Bytes(BytesIO):
    """A damaged header sends libsndfile before the start; it notices, where an exception would be printed."""

    def seek(self, offset: int, whence: int = 0) -> int:
        try:
            return super().seek(offset, whence)
        except (ValueError, OverflowError):
            return self.tell()


def frames(waveform: NDArray[np.float32], samples_per_frame: int = SAMPLES_PER_FRAME) -> NDArray[np.float32]:
    """[n] -> [ceil(n / samples_per_frame), samples_per_frame], the last frame filled up with zeros."""
    count = -(-len(waveform) // samples_per_frame)
    padded = np.zeros(count * samples_per_frame, dtype=np.float32)
    padded[: len(waveform)] = waveform
    return padded.reshape(count, samples_per_frame)  # [F, 640]


def _read(file: int | BytesIO, start: bytes, name: str) -> NDArray[np.float32]:
    """The samples of an open file, or of its descriptor, whose first bytes are `start`."""
    import soundfile

    if not start:
        raise InputError(f"{name} is empty (0 bytes); attach a sound that has been written completely")
    if start[4:8] == b"ftyp":
        raise InputError(
            f"{name} is MPEG-4 (m4a), which is not read here; convert it: afconvert -f WAVE -d LEI16 IN OUT"
        )
    blocks = []
    try:
        with soundfile.SoundFile(file, closefd=False) as sound:
            while len(block := sound.read(_BLOCK_SAMPLES, dtype="float32", always_2d=True)):
                blocks.append(block.mean(axis=1, dtype=np.float32))  # [block]
            rate_hz, promised = int(sound.samplerate), int(sound.frames)
    except (soundfile.SoundFileError, RuntimeError, ValueError, TypeError) as error:
        raise InputError(
            f"{name} is not a sound that can be read (WAV, FLAC, OGG, MP3, AIFF, CAF); convert it to WAV"
        ) from error
    samples = np.concatenate(blocks) if blocks else np.zeros(0, dtype=np.float32)
    if len(samples) < promised:
        raise InputError(
            f"{name} ends early: {len(samples):,} of {promised:,} samples can be read; save or download it again"
        )
    return _resampled(samples, rate_hz, name)


def _mono_array(array: NDArray[Any]) -> NDArray[np.float32]:
    if array.ndim not in (1, 2) or (array.ndim == 2 and array.shape[1] > array.shape[0] > 0):
        raise InputError(f"a sound array of shape {array.shape} is not [samples] or [samples, channels]; transpose it")
    if np.issubdtype(array.dtype, np.floating):
        samples = array.astype(np.float32)
    elif array.dtype.name in _INTEGER_SCALE:
        samples = array.astype(np.float32) * np.float32(_INTEGER_SCALE[array.dtype.name])
    else:
        raise InputError(f"a sound array of {array.dtype} has no known scale; pass float32 within -1..1")
    if array.ndim == 1:
        return samples
    return samples.mean(axis=1, dtype=np.float32) if samples.shape[1] else np.zeros(0, dtype=np.float32)


def _resampled(samples: NDArray[np.float32], rate_hz: int, name: str) -> NDArray[np.float32]:
    if len(samples) == 0:
        raise InputError(f"{name} holds no samples (zero length or no channels); record or attach it again")
    if not _LOWEST_RATE_HZ <= rate_hz <= _HIGHEST_RATE_HZ:
        raise InputError(f"{name} claims a sample rate of {rate_hz} Hz; give the rate it was recorded at")
    if not np.isfinite(samples).all():
        first = int(np.argmin(np.isfinite(samples)))
        raise InputError(
            f"{name} holds a value that is not a number at {first / rate_hz:.3f} s; export it again as WAV"
        )
    if rate_hz == SAMPLE_RATE_HZ:
        return samples
    import soxr

    resampled: NDArray[np.float32] = soxr.resample(samples, rate_hz, SAMPLE_RATE_HZ, quality="HQ")
    if len(resampled) == 0:
        raise InputError(f"{name} is too short: {len(samples)} samples at {rate_hz} Hz; record a longer one")
    return resampled
