from __future__ import annotations

import io
import os
import tempfile
import threading
import tracemalloc
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import soxr
from numpy.typing import NDArray

from gemma_mlx.errors import InputError
from gemma_mlx.inputs import sound_stream
from gemma_mlx.inputs.sound_stream import SAMPLE_RATE_HZ, open_sound
from gemma_mlx.inputs.waveform import read_waveform
from tests.inputs.clips import CONTAINERS, clip, numbered, tone


def noise(seconds: float, rate_hz: int) -> NDArray[np.float32]:
    return np.random.default_rng(7).uniform(-0.5, 0.5, round(seconds * rate_hz)).astype(np.float32)


def wav(samples: NDArray[np.float32], rate_hz: int, subtype: str = "FLOAT") -> bytes:
    file = io.BytesIO()
    soundfile.write(file, samples, rate_hz, format="WAV", subtype=subtype)
    return file.getvalue()


@pytest.mark.parametrize("rate_hz", [8_000, 16_000, 44_100, 48_000])
def test_blocks_are_one_unbroken_sound(rate_hz: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sound_stream, "_BLOCK_SAMPLES", 5_000)
    samples = noise(2, rate_hz)
    with open_sound(wav(samples, rate_hz)) as sound:
        blocks = list(sound.blocks)
    assert sound.duration_s == pytest.approx(2)
    assert len(blocks) >= 4
    whole = soxr.resample(samples, rate_hz, SAMPLE_RATE_HZ, quality="HQ")
    assert np.allclose(np.concatenate(blocks), whole, atol=1e-6)


SOUNDS = [("ipod", "aac"), ("mp4", "alac"), ("adts", "aac"), ("ac3", "ac3"), ("mp3", "libmp3lame"), ("ogg", "libopus")]


@pytest.mark.parametrize(("form", "codec"), SOUNDS)
def test_compressed_sound_is_heard(form: str, codec: str) -> None:
    assert_tone(read_waveform(clip([], form, sound=tone(1.5), sound_codec=codec)))


@pytest.mark.parametrize(("form", "codec", "sound_codec"), CONTAINERS)
def test_sound_track_of_a_video_is_heard(form: str, codec: str, sound_codec: str, tmp_path: Path) -> None:
    path = tmp_path / "clip"
    path.write_bytes(clip(numbered(45), form, codec, sound=tone(1.5), sound_codec=sound_codec))
    assert_tone(read_waveform(path))


def assert_tone(heard: NDArray[np.float32]) -> None:
    assert len(heard) == pytest.approx(1.5 * SAMPLE_RATE_HZ, abs=1100)
    assert np.argmax(np.abs(np.fft.rfft(heard[4000:20_000]))) == 440
    assert np.sqrt(2 * np.mean(heard[4000:20_000] ** 2)) == pytest.approx(0.5, rel=0.1)


def test_lossless_sound_in_mpeg_4_keeps_its_samples() -> None:
    samples = noise(1, 16_000)
    heard = read_waveform(clip([], "mp4", sound=samples, sound_codec="alac", rate_hz=16_000))
    assert np.allclose(heard, samples, atol=2**-15)


@pytest.mark.parametrize(("layout", "channels"), [("stereo", 2), ("7.1", 8), ("9 channels", 9), ("hexadecagonal", 16)])
def test_channels_in_mpeg_4_are_averaged(layout: str, channels: int, tmp_path: Path) -> None:
    import av

    tones = np.stack([tone(0.5, 16_000, 300 + 20 * channel) for channel in range(channels)])
    with av.open(tmp_path / "many.mov", "w", format="mov") as container:
        stream = container.add_stream("pcm_s16le", rate=16_000, layout=layout)
        packed = np.round(tones.T * 2**15).astype(np.int16).reshape(1, -1)
        frame = av.AudioFrame.from_ndarray(packed, format="s16", layout=layout)
        frame.sample_rate = 16_000
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    assert np.allclose(read_waveform(tmp_path / "many.mov"), tones.mean(axis=0), atol=2**-14)


@pytest.mark.parametrize("form", ["WAV", "MATROSKA"])
def test_an_hour_takes_no_more_memory_than_a_minute(form: str, tmp_path: Path) -> None:
    path = tmp_path / "hour"
    minute = (noise(60, 4_000) * 100).astype(np.int16)
    if form == "WAV":
        with soundfile.SoundFile(path, "w", 4_000, 1, "PCM_U8", format="WAV") as file:
            for _ in range(60):
                file.write(minute)
    else:
        write_matroska(path, minute)
    tracemalloc.start()
    try:
        with open_sound(path) as sound:
            count = sum(len(block) for block in sound.blocks)
        peak_bytes = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert sound.duration_s == pytest.approx(3600)
    assert count == 3600 * SAMPLE_RATE_HZ  # 230 MB
    assert peak_bytes < 25e6


def write_matroska(path: Path, minute: NDArray[np.int16]) -> None:
    import av

    with av.open(path, "w", format="matroska") as container:
        stream = container.add_stream("pcm_s16le", rate=4_000, layout="mono")
        for index in range(60):
            frame = av.AudioFrame.from_ndarray(minute[None], format="s16", layout="mono")
            frame.sample_rate, frame.pts = 4_000, index * len(minute)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


def adts(layout: str, rate_hz: int) -> bytes:
    """Half a second of tone on each channel."""
    import av

    file = io.BytesIO()
    with av.open(file, "w", format="adts") as container:
        stream = container.add_stream("aac", rate=rate_hz, layout=layout)
        samples = np.stack([tone(0.5, rate_hz)] * stream.channels)
        frame = av.AudioFrame.from_ndarray(samples, format="fltp", layout=layout)
        frame.sample_rate = rate_hz
        container.mux([*stream.encode(frame), *stream.encode(None)])
    return file.getvalue()


def test_channels_may_change_and_the_rate_may_not() -> None:
    heard = read_waveform(adts("mono", 16_000) + adts("stereo", 16_000))
    assert sum(end - begin for begin, end in loud_s(heard)) == pytest.approx(1, abs=0.1)
    with pytest.raises(InputError, match=r"is of 48000 Hz from 0\.\d s on; convert it to one rate"):
        read_waveform(adts("mono", 16_000) + adts("mono", 48_000))


def write_at(path: Path, form: str, codec: str, times_s: list[float], *, pictures: int = 0) -> bytes:
    """Half a second of tone at each time, beside a second for each of the `pictures`."""
    import av

    with av.open(path, "w", format=form) as container:
        video = None
        if pictures:
            video = container.add_stream("mpeg4", rate=1)
            video.width, video.height, video.pix_fmt = 96, 64, "yuv420p"
        stream = container.add_stream(codec, rate=16_000, layout="mono")
        packets = []
        for index in range(pictures):
            picture = av.VideoFrame.from_ndarray(numbered(1)[0], format="rgb24")
            picture.pts = index
            packets += video.encode(picture)
        for place_s in times_s:
            samples = (tone(0.5, 16_000) * 32767).astype(np.int16)
            frame = av.AudioFrame.from_ndarray(samples[None], format="s16", layout="mono")
            frame.sample_rate, frame.pts, frame.time_base = 16_000, round(place_s * 16_000), Fraction(1, 16_000)
            packets += stream.encode(frame)
        packets += [packet for encoder in (video, stream) if encoder for packet in encoder.encode(None)]
        for packet in sorted(packets, key=lambda packet: packet.dts * packet.time_base):
            container.mux(packet)
    return path.read_bytes()


def loud_s(heard: NDArray[np.float32]) -> list[tuple[float, float]]:
    """From when to when it is loud."""
    loud = np.abs(heard).reshape(-1)[: len(heard) // 160 * 160].reshape(-1, 160).max(axis=1) > 0.2
    edges = np.flatnonzero(np.diff(np.concatenate([[False], loud, [False]])))
    return [(first / 100, last / 100) for first, last in zip(edges[::2], edges[1::2], strict=True)]


@pytest.mark.parametrize(
    ("form", "codec", "times_s", "pictures", "expected_s"),
    [
        ("matroska", "pcm_s16le", [3, 3.5], 5, [(3, 4)]),
        ("mp4", "alac", [3, 3.5], 5, [(3, 4)]),
        ("matroska", "pcm_s16le", [0, 3], 5, [(0, 0.5), (3, 3.5)]),
        ("matroska", "pcm_s16le", [0, 3], 0, [(0, 0.5), (3, 3.5)]),
        ("matroska", "pcm_s16le", [3, 3.55], 0, [(0, 1)]),  # alone it begins when it begins, and 0.05 s are rounding
    ],
)
def test_sound_is_at_its_time(
    form: str, codec: str, times_s: list[float], pictures: int, expected_s: list[Any], tmp_path: Path
) -> None:
    path = tmp_path / "film"
    data = write_at(path, form, codec, times_s, pictures=pictures)
    assert np.allclose(loud_s(read_waveform(path)), expected_s, atol=0.06)
    path.write_bytes(data[: len(data) * 3 // 4])
    with pytest.raises(InputError, match=r"film ends early|film is damaged"):
        read_waveform(path)


def test_a_hole_is_given_in_blocks_and_one_of_years_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "film.mka"
    write_at(path, "matroska", "pcm_s16le", [0, 600])
    with open_sound(path) as sound:
        lengths = [len(block) for block in sound.blocks]
    assert sum(lengths) == 600.5 * SAMPLE_RATE_HZ
    assert max(lengths) < 2 * sound_stream._BLOCK_SAMPLES
    write_at(path, "matroska", "pcm_s16le", [0, 1e8])
    with pytest.raises(InputError, match=r"film\.mka has holes of 100,000,000 s in its sound"):
        read_waveform(path)


def test_pipe_is_read_like_a_file(tmp_path: Path) -> None:
    data = clip([], "ipod", sound=tone(0.5))
    expected = read_waveform(data)
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    writer = threading.Thread(target=pipe.write_bytes, args=(data,))
    writer.start()
    assert np.array_equal(read_waveform(pipe), expected)
    writer.join()
    reading, writing = os.pipe()
    writer = threading.Thread(target=lambda: (os.write(writing, data), os.close(writing)))
    writer.start()
    with os.fdopen(reading, "rb") as file:
        assert np.array_equal(read_waveform(file), expected)
    writer.join()


def test_pipe_without_room_for_a_copy_is_one_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    class Full(io.FileIO):
        def write(self, data: object) -> int:
            raise OSError(28, "No space left on device")

    full = tmp_path / "full"
    monkeypatch.setattr(tempfile, "TemporaryFile", lambda **_: Full(full, "w+"))
    with pytest.raises(InputError, match=r"cannot copy the sound to .*No space left on device.*make room") as raised:
        read_waveform(io.BytesIO(b"RIFF" * 100))
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("form", "codec", "options"),
    [
        ("ipod", "aac", {"movflags": "faststart"}),
        ("ipod", "aac", {}),
        ("matroska", "libopus", {}),
        ("mp4", "alac", {"movflags": "faststart"}),
    ],
)
def test_cut_sound_is_refused_after_what_is_good(
    form: str, codec: str, options: dict[str, str], tmp_path: Path
) -> None:
    path = tmp_path / "memo"
    data = write_noise(path, form, codec, options)
    assert len(read_waveform(path)) == pytest.approx(4 * SAMPLE_RATE_HZ, abs=1600)
    for length in (len(data) // 4, len(data) // 2, len(data) - 2000):
        path.write_bytes(data[:length])
        taken: list[NDArray[np.float32]] = []
        with pytest.raises(InputError, match=r"memo ends early|memo is damaged") as raised:
            take_all(path, taken)
        assert "\n" not in str(raised.value)
        good = sum(map(len, taken))
        assert good < 4 * SAMPLE_RATE_HZ
        if options:
            assert good > SAMPLE_RATE_HZ * 4 * length / len(data) - 16_000


def take_all(path: Path, taken: list[NDArray[np.float32]]) -> None:
    with open_sound(path) as sound:
        taken.extend(sound.blocks)


def write_noise(path: Path, form: str, codec: str, options: dict[str, str]) -> bytes:
    import av

    with av.open(path, "w", format=form, options=options) as container:
        stream = container.add_stream(codec, rate=16_000, layout="mono")
        frame = av.AudioFrame.from_ndarray(noise(4, 16_000)[None], format="fltp", layout="mono")
        frame.sample_rate = 16_000
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path.read_bytes()


@pytest.mark.parametrize(
    ("data", "claim"),
    [
        (clip(numbered(3)), "no sound track; attach"),
        (b"ffconcat version 1.0\nfile 'other.wav'\n", "not a sound that can be read"),
        (b"#EXTM3U\n#EXTINF:10,\nhttp://127.0.0.1:9/a.ts\n#EXT-X-ENDLIST\n", "not a sound that can be read"),
        (b"\0" * 5000, "not a sound that can be read"),
        (b"\xff\xd8\xff\xe0" + b"\0" * 5000, "not a sound that can be read"),
    ],
)
def test_what_is_no_sound_is_refused(data: bytes, claim: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "memo.m4a"
    path.write_bytes(data)
    (tmp_path / "other.wav").write_bytes(wav(tone(1, 16_000), 16_000))
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=claim) as raised:
        read_waveform(path)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("piped", [False, True])
def test_a_header_that_points_nowhere_is_one_line(
    piped: bool, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "memo.w64"
    soundfile.write(path, np.full(4000, 0x0101, np.int16), 16_000, format="W64")
    damaged = bytearray(path.read_bytes())
    format_chunk = damaged.index(b"fmt ")
    damaged[format_chunk + 5] ^= 255
    damaged[format_chunk + 17] = 1  # 256 bytes too long: samples are taken for headers, of 2 ** 56 bytes each
    path.write_bytes(damaged)
    with pytest.raises(InputError, match="is not a sound that can be read"):
        read_waveform(path.open("rb") if piped else path)
    assert capfd.readouterr().err == ""


def test_damage_in_the_middle_is_told(tmp_path: Path) -> None:
    path = tmp_path / "memo.m4a"
    data = bytearray(write_noise(path, "ipod", "aac", {"movflags": "faststart"}))
    data[len(data) // 2 : len(data) // 2 + 600] = b"\xff" * 600
    path.write_bytes(data)
    with pytest.raises(InputError, match=r"memo\.m4a is damaged .*save or download it again"):
        read_waveform(path)
