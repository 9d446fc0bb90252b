"""A sound on disk or in memory -> mono samples at 16 kHz -> the frames of 640 samples that the model takes.

No normalisation and no cut: the samples are the file's own, and a sound of any length is read, whole, into memory
(4 bytes per sample of the file's own rate, one channel). Frames equal transformers'
`Gemma4UnifiedAudioFeatureExtractor`.
"""

from __future__ import annotations

import os
import struct
from io import BytesIO, FileIO
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from gemma_mlx.errors import InputError

SAMPLE_RATE_HZ = 16_000
SAMPLES_PER_FRAME = 640

WaveformSource = Path | str | bytes | BinaryIO | tuple[NDArray[Any], int]

_FIRST_BYTES = 12
# First bytes of a file of chunks -> byte order of its sizes, and the chunk that holds the samples (WAV, AIFF).
_CHUNKED = {b"RIFF": ("<", b"data"), b"RF64": ("<", b"data"), b"RIFX": (">", b"data"), b"FORM": (">", b"SSND")}
_MOST_CHUNKS = 10_000  # Before the samples; a file of zeros would claim one every 8 bytes.
_UNKNOWN_BYTES = 0x7F000000  # From here on, a chunk's size is what a writer into a pipe put for one it did not know.
_OGG_TAIL_BYTES = 1 << 17  # Two pages at their longest.
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
        return _read(_Bytes(data), "the sound")
    path = Path(source)
    try:
        with path.open("rb", buffering=0) as file:
            return _read(file, path.name)
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


def _read(file: FileIO | _Bytes, name: str) -> NDArray[np.float32]:
    """The samples of an open file."""
    import soundfile

    start = file.read(_FIRST_BYTES)
    if not start:
        raise InputError(f"{name} is empty (0 bytes); attach a sound that has been written completely")
    if start[4:8] == b"ftyp":
        raise InputError(
            f"{name} is MPEG-4 (m4a), which is not read here; convert it: afconvert -f WAVE -d LEI16 IN OUT"
        )
    _refuse_cut(file, start, name)
    file.seek(0)
    blocks = []
    try:
        # By its name, libsndfile would take a file without a header for what the name says.
        handle = file if isinstance(file, _Bytes) else file.fileno()
        with soundfile.SoundFile(handle, closefd=False) as sound:
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


def _refuse_cut(file: FileIO | _Bytes, start: bytes, name: str) -> None:
    """InputError for a WAV, AIFF or OGG that was cut: libsndfile takes one for a shorter sound."""
    size_bytes = file.seek(0, os.SEEK_END)
    if start[:4] in _CHUNKED:
        promised, begin = _samples_chunk(file, start)
        if size_bytes - begin < promised:
            raise InputError(
                f"{name} ends early: {size_bytes - begin:,} of {promised:,} bytes of samples are there; "
                "save or download it again"
            )
    elif start[:4] == b"OggS":
        file.seek(max(0, size_bytes - _OGG_TAIL_BYTES))
        if not _ends_stream(file.read()):
            raise InputError(f"{name} ends early: its last page does not end the stream; save or download it again")


def _samples_chunk(file: FileIO | _Bytes, start: bytes) -> tuple[int, int]:
    """(bytes promised, place of the first one) of the chunk with the samples; 0 bytes where none says how many."""
    order, wanted = _CHUNKED[start[:4]]
    begin, long_bytes = _FIRST_BYTES, 0
    for _ in range(_MOST_CHUNKS):
        file.seek(begin)
        header = file.read(8)
        if len(header) < 8:
            break
        chunk, length = struct.unpack(order + "4sI", header)
        begin += 8
        if chunk == wanted:
            if start[:4] == b"RF64" and length == 0xFFFFFFFF:
                return long_bytes, begin
            return (length if length < _UNKNOWN_BYTES else 0), begin
        if chunk == b"ds64":
            long_bytes = int.from_bytes(file.read(16)[8:], "little")
        begin += length + length % 2
    return 0, 0


def _ends_stream(tail: bytes) -> bool:
    """Whether the last Ogg page in `tail` is whole and marked as the end of its stream."""
    page = tail[max(0, tail.rfind(b"OggS\0")) :]
    if len(page) < 27:
        return False
    flags, segments = page[5], page[26]
    page_bytes = 27 + segments + sum(page[27 : 27 + segments])
    return len(page) >= page_bytes and bool(flags & 4)


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
