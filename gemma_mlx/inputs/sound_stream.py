"""A sound of any length as a stream: mono samples at 16 kHz in blocks, decoded as they are asked for.

libsndfile reads WAV, FLAC, OGG, MP3, AIFF and CAF; what it does not know, such as MPEG-4, WebM, AAC and the sound
track of a video, FFmpeg does (`container.py`). At no time is more of a sound in memory than a few blocks; what comes
out of a pipe is first copied to a temporary file, for most formats cannot be read from front to back.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from io import BytesIO
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from gemma_mlx.errors import InputError
from gemma_mlx.inputs.container import damage_in_one_line, open_container, whole_packets
from gemma_mlx.inputs.seekable import seekable_file
from gemma_mlx.inputs.sound_headers import FIRST_BYTES, refuse_cut

if TYPE_CHECKING:
    from av import AudioFrame, AudioResampler, AudioStream
    from av.container import InputContainer

SAMPLE_RATE_HZ = 16_000

WaveformSource = Path | str | bytes | BinaryIO | tuple[NDArray[Any], int]
Blocks = Generator[NDArray[np.float32], None, None]

_BLOCK_SAMPLES = 1 << 18
_SMALLEST_HOLE_S = 0.1  # Containers round the times of their frames, and encoders put some samples before the first.
_MOST_FILLED_S = 6 * 3600  # A damaged time can lie years ahead.
_LOWEST_RATE_HZ, _HIGHEST_RATE_HZ = 1_000, 768_000  # A damaged header can claim any; 1 Hz would grow 16,000 times.
_INTEGER_SCALE = {"int16": 1 / (1 << 15), "int32": 1 / (1 << 31)}  # As soundfile scales them.
_REFUSAL = "is not a sound that can be read (WAV, FLAC, OGG, MP3, M4A, AAC, AIFF, CAF, video); convert it to WAV"


@dataclass(frozen=True)
class SoundStream:
    """A sound being read. Take its blocks once, while it is open."""

    blocks: Iterator[NDArray[np.float32]]
    """Samples [n] at 16 kHz, n at least 1; the channels are averaged. All blocks together are one unbroken sound.

    InputError comes between two blocks where the file is damaged or ends early: what was good until there has been
    given, and no end without an error is a wrong one.
    """
    duration_s: float | None
    """As the file claims, if it does."""


@dataclass(frozen=True)
class _Decoded:
    """A sound as its file holds it, but mono."""

    rate_hz: int
    duration_s: float | None
    blocks: Blocks


@contextmanager
def open_sound(source: WaveformSource) -> Iterator[SoundStream]:
    """`source` as a stream. An open file is read from where it stands, and may be a pipe.

    An array comes with its rate in Hz and is [samples] or [samples, channels]: floating point as it is, int16 and
    int32 scaled to -1..1. InputError where the sound is missing, empty, not a sound, cut short, without samples or
    channels, or holds a value that is not a number; the last three may show only among the blocks.
    """
    name = Path(source).name if isinstance(source, (str, Path)) else "the sound"
    with nullcontext(_of_array(*source)) if isinstance(source, tuple) else _of_file(source, name) as decoded:
        yield SoundStream(_at_16_khz(decoded, name), decoded.duration_s)


@contextmanager
def _of_file(source: Path | str | bytes | BinaryIO, name: str) -> Iterator[_Decoded]:
    with seekable_file(source, "sound") as file:
        start = file.read(FIRST_BYTES)
        if not start:
            raise InputError(f"{name} is empty (0 bytes); attach a sound that has been written completely")
        refuse_cut(file, start, name)
        with _of_libsndfile(file, name) as decoded:
            if decoded is not None:
                yield decoded
                return
        with _of_ffmpeg(file, name) as decoded:
            yield decoded


@contextmanager
def _of_libsndfile(file: BinaryIO, name: str) -> Iterator[_Decoded | None]:
    """None where libsndfile does not know the file."""
    import soundfile

    file.seek(0)
    try:
        # By its name, libsndfile would take a file without a header for what the name says.
        sound = soundfile.SoundFile(file if isinstance(file, BytesIO) else file.fileno(), closefd=False)
    except (soundfile.SoundFileError, RuntimeError, ValueError, TypeError):
        yield None
        return
    with sound:
        promised, rate_hz = int(sound.frames), int(sound.samplerate)

        def blocks() -> Blocks:
            count = 0
            try:
                while len(block := sound.read(_BLOCK_SAMPLES, dtype="float32", always_2d=True)):
                    count += len(block)
                    yield block.mean(axis=1, dtype=np.float32)  # [block]
            except (soundfile.SoundFileError, RuntimeError, ValueError, TypeError) as error:
                raise InputError(
                    f"{name} is damaged at {count / rate_hz:.1f} s; save or download it again, or convert it to WAV"
                ) from error
            if count < promised:
                raise InputError(
                    f"{name} ends early: {count:,} of {promised:,} samples can be read; save or download it again"
                )

        yield _Decoded(rate_hz, promised / rate_hz if 0 < promised < 1 << 62 and rate_hz else None, blocks())


@contextmanager
def _of_ffmpeg(file: BinaryIO, name: str) -> Iterator[_Decoded]:
    with open_container(file, name, _REFUSAL) as container:
        if not container.streams.audio:
            raise InputError(f"{name} has no sound track; attach a file that has one")
        stream = container.streams.audio[0]
        if stream.duration is not None and stream.time_base is not None:
            late_s = float((stream.start_time or 0) * stream.time_base) - _begin_s(container)
            duration_s: float | None = max(0.0, late_s) + float(stream.duration * stream.time_base)
        else:
            duration_s = container.duration / 1e6 if container.duration else None
        frames = _ffmpeg_frames(container, stream, name)
        rate_hz, first = next(frames, (SAMPLE_RATE_HZ, np.zeros(0, dtype=np.float32)))

        yield _Decoded(rate_hz, duration_s, _joined(chain([(rate_hz, first)], frames), name))


def _ffmpeg_frames(
    container: InputContainer, stream: AudioStream, name: str
) -> Iterator[tuple[int, NDArray[np.float32]]]:
    """(rate in Hz, mono samples) of each frame of `stream`, in the order of the file.

    Every sample is at its time from the beginning of the container: there is silence where the sound begins later than
    the pictures, and where it has a hole. InputError where there would be hours of it.
    """
    mixers: dict[tuple[object, ...], AudioResampler] = {}
    given = filled = 0
    with damage_in_one_line(name):
        packets = (packet for packet in whole_packets(container, name) if packet.stream_index == stream.index)
        for frame in chain.from_iterable(stream.decode(packet) for packet in packets):
            hole = _hole(frame, given, _begin_s(container))
            filled, given = filled + hole, given + hole
            if filled > _MOST_FILLED_S * frame.sample_rate:
                raise InputError(
                    f"{name} has holes of {filled / frame.sample_rate:,.0f} s in its sound, by times that may be "
                    "damaged; convert it to WAV"
                )
            for start in range(0, hole, _BLOCK_SAMPLES):
                yield frame.sample_rate, np.zeros(min(_BLOCK_SAMPLES, hole - start), dtype=np.float32)
            for samples in _mono(frame, mixers):
                given += len(samples)
                yield frame.sample_rate, samples


def _mono(frame: AudioFrame, mixers: dict[tuple[object, ...], AudioResampler]) -> Iterator[NDArray[np.float32]]:
    """The mean of the channels of `frame`. Each of `mixers` takes frames of one kind; one is added for another."""
    import av

    kind = (frame.format.name, frame.layout.name, frame.sample_rate)
    if kind not in mixers:
        mixers[kind] = av.AudioResampler(format="flt")  # packed: of more than 8 channels, 8 would have planes
    for packed in mixers[kind].resample(frame):
        yield packed.to_ndarray().reshape(-1, len(packed.layout.channels)).mean(axis=1, dtype=np.float32)


def _hole(frame: AudioFrame, given: int, begin_s: float) -> int:
    """How many samples lie between the first `given` and `frame`, by its time; 0 where that is next to nothing."""
    if frame.time is None:
        return 0
    hole = round((frame.time - begin_s) * frame.sample_rate) - given
    return hole if hole > _SMALLEST_HOLE_S * frame.sample_rate else 0


def _begin_s(container: InputContainer) -> float:
    """The time of the first of all its streams."""
    return (container.start_time or 0) / 1e6


def _joined(frames: Iterable[tuple[int, NDArray[np.float32]]], name: str) -> Blocks:
    """Frames of a few hundred samples as blocks; where they end in an error, what came before it is given first."""
    held: list[NDArray[np.float32]] = []
    held_samples = taken = first_rate_hz = 0
    failure: InputError | None = None
    try:
        for rate_hz, samples in frames:
            first_rate_hz = first_rate_hz or rate_hz
            if rate_hz != first_rate_hz:
                place_s = taken / first_rate_hz
                raise InputError(f"{name} is of {rate_hz} Hz from {place_s:.1f} s on; convert it to one rate")
            held.append(samples)
            held_samples, taken = held_samples + len(samples), taken + len(samples)
            if held_samples >= _BLOCK_SAMPLES:
                yield np.concatenate(held)
                held, held_samples = [], 0
    except InputError as error:
        failure = error
    if held_samples:
        yield np.concatenate(held)
    if failure is not None:
        raise failure


def _of_array(array: NDArray[Any], rate_hz: int) -> _Decoded:
    if array.ndim not in (1, 2) or (array.ndim == 2 and array.shape[1] > array.shape[0] > 0):
        raise InputError(f"a sound array of shape {array.shape} is not [samples] or [samples, channels]; transpose it")
    if np.issubdtype(array.dtype, np.floating):
        scale = np.float32(1)
    elif array.dtype.name in _INTEGER_SCALE:
        scale = np.float32(_INTEGER_SCALE[array.dtype.name])
    else:
        raise InputError(f"a sound array of {array.dtype} has no known scale; pass float32 within -1..1")
    if array.size == 0:
        array = np.zeros(0, dtype=np.float32)

    def blocks() -> Blocks:
        for start in range(0, len(array), _BLOCK_SAMPLES):
            block = array[start : start + _BLOCK_SAMPLES].astype(np.float32) * scale
            yield block if block.ndim == 1 else block.mean(axis=1, dtype=np.float32)

    return _Decoded(rate_hz, len(array) / rate_hz if rate_hz > 0 else None, blocks())


def _at_16_khz(decoded: _Decoded, name: str) -> Blocks:
    """What was decoded, checked and resampled; the resampler keeps what it needs across the seams."""
    rate_hz = decoded.rate_hz
    if not _LOWEST_RATE_HZ <= rate_hz <= _HIGHEST_RATE_HZ:
        raise InputError(f"{name} claims a sample rate of {rate_hz} Hz; give the rate it was recorded at")
    resampler = None
    if rate_hz != SAMPLE_RATE_HZ:
        import soxr

        resampler = soxr.ResampleStream(rate_hz, SAMPLE_RATE_HZ, 1, dtype="float32", quality="HQ")
    taken = given = 0
    for block in decoded.blocks:
        finite = np.isfinite(block)
        if not finite.all():
            place_s = (taken + int(np.argmin(finite))) / rate_hz
            raise InputError(f"{name} holds a value that is not a number at {place_s:.3f} s; export it again as WAV")
        taken += len(block)
        resampled = resampler.resample_chunk(block) if resampler else block
        given += len(resampled)
        if len(resampled):
            yield resampled
    if not taken:
        raise InputError(f"{name} holds no samples (zero length or no channels); record or attach it again")
    if resampler and len(rest := resampler.resample_chunk(np.zeros(0, dtype=np.float32), last=True)):
        given += len(rest)
        yield rest
    if not given:
        raise InputError(f"{name} is too short: {taken} samples at {rate_hz} Hz; record a longer one")
