from __future__ import annotations

import json
import struct
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from gemma_mlx.errors import InputError
from gemma_mlx.inputs.waveform import SAMPLE_RATE_HZ, frames, read_waveform
from tests.golden.make_processing import reference_frames, sha256, sound

GOLDEN = Path(__file__).parents[1] / "golden"
PROCESSING = json.loads((GOLDEN / "processing.json").read_text(encoding="utf-8"))


def tone(hz: float, rate_hz: int, seconds: float = 0.5) -> NDArray[np.float32]:
    return (0.5 * np.sin(2 * np.pi * hz * np.arange(int(rate_hz * seconds)) / rate_hz)).astype(np.float32)


def saved(samples: NDArray[np.float32], rate_hz: int, format_name: str = "WAV", subtype: str | None = None) -> bytes:
    file = BytesIO()
    soundfile.write(file, samples, rate_hz, format=format_name, subtype=subtype)
    return file.getvalue()


def wav(rate_hz: int, channels: int, data: bytes) -> bytes:
    """A 16-bit WAV by hand, for what soundfile does not write."""
    form = struct.pack("<HHIIHH", 1, channels, rate_hz, rate_hz * channels * 2, channels * 2, 16)
    body = b"WAVEfmt " + struct.pack("<I", 16) + form + b"data" + struct.pack("<I", len(data)) + data
    return b"RIFF" + struct.pack("<I", len(body)) + body


def assert_one_line(error: InputError) -> None:
    assert "\n" not in str(error)
    assert len(str(error)) < 300


@pytest.mark.parametrize(("length", "digest"), PROCESSING["sounds"])
def test_frames_equal_reference(length: int, digest: str) -> None:
    assert sha256(frames(sound(length))) == digest


@settings(deadline=None)
@given(length=st.integers(1, 5000))
def test_frames_hold_every_sample_and_then_zeros(length: int) -> None:
    waveform = np.arange(1, length + 1, dtype=np.float32)
    cut = frames(waveform)
    assert cut.shape == (-(-length // 640), 640)
    assert np.array_equal(cut.reshape(-1)[:length], waveform)
    assert not cut.reshape(-1)[length:].any()


def test_float_samples_are_not_touched() -> None:
    samples = np.array([0.0, 0.25, -1.5, 3.0], dtype=np.float32)
    assert np.array_equal(read_waveform(saved(samples, 16_000, subtype="FLOAT")), samples)
    assert np.array_equal(read_waveform((samples, 16_000)), samples)


@pytest.mark.parametrize(
    ("format_name", "subtype"),
    [
        *(("WAV", "PCM_16"), ("WAV", "PCM_24"), ("WAV", "PCM_U8"), ("FLAC", "PCM_16"), ("AIFF", "PCM_16")),
        *(("CAF", "PCM_16"), ("OGG", "VORBIS"), ("OGG", "OPUS"), ("MP3", "MPEG_LAYER_III")),
    ],
)
def test_every_container_gives_the_same_sound(format_name: str, subtype: str) -> None:
    samples = tone(440, 16_000)
    heard = read_waveform(saved(samples, 16_000, format_name, subtype))
    assert heard.dtype == np.float32
    assert abs(len(heard) - len(samples)) <= 2400
    middle = slice(2000, 6000)
    power = np.abs(np.fft.rfft(heard[middle]))
    assert np.argmax(power) == round(440 * 4000 / 16_000)
    assert np.sqrt(np.mean(heard[middle] ** 2)) == pytest.approx(0.5 / np.sqrt(2), rel=0.05)


@pytest.mark.parametrize("rate_hz", [8_000, 11_025, 22_050, 24_000, 44_100, 48_000, 96_000, 192_000])
def test_any_rate_becomes_16_khz(rate_hz: int) -> None:
    heard = read_waveform((tone(1000, rate_hz), rate_hz))
    assert abs(len(heard) - SAMPLE_RATE_HZ // 2) <= 1
    inner = slice(800, -800)
    assert np.allclose(heard[inner], tone(1000, SAMPLE_RATE_HZ)[: len(heard)][inner], atol=2e-3)


def test_what_16_khz_cannot_hold_is_filtered_not_folded() -> None:
    # Without a filter 9 kHz at 48 kHz would come back as 7 kHz at full strength.
    heard = read_waveform((tone(9_000, 48_000), 48_000))
    assert np.abs(heard[500:-500]).max() < 1e-4


def test_channels_are_averaged() -> None:
    left, right = tone(300, 16_000), tone(500, 16_000)
    heard = read_waveform(saved(np.stack([left, right], axis=1), 16_000, subtype="FLOAT"))
    assert np.allclose(heard, (left + right) / 2, atol=1e-7)
    six = np.tile(left[:, None], (1, 6))
    assert np.allclose(read_waveform((six, 16_000)), left, atol=1e-6)


def test_integer_arrays_are_scaled_like_files() -> None:
    codes = np.array([0, 16_384, -32_768, 32_767], dtype=np.int16)
    from_file = read_waveform(wav(16_000, 1, codes.tobytes()))
    assert np.array_equal(read_waveform((codes, 16_000)), from_file)
    assert from_file.tolist() == [0, 0.5, -1, 32_767 / 32_768]


def test_sources_of_every_kind_give_the_same_sound(tmp_path: Path) -> None:
    data = saved(tone(440, 44_100), 44_100)
    path = tmp_path / "memo.wav"
    path.write_bytes(data)
    with path.open("rb") as file:
        heard = [read_waveform(source).tobytes() for source in (path, str(path), data, file)]
    assert len(set(heard)) == 1


def test_long_sound_is_not_cut() -> None:
    assert len(frames(read_waveform((np.zeros(95 * 16_000, dtype=np.float32), 16_000)))) == 95 * 25


@pytest.mark.parametrize(
    ("content", "claim"),
    [
        (b"", r"memo\.wav is empty \(0 bytes\)"),
        (b"Dear diary,\ntoday I learned nothing.\n", r"memo\.wav is not a sound.*convert it to WAV"),
        (b"\0\0\0\x20ftypM4A \0\0\0\0", r"memo\.wav ends early: its table of contents"),
        (wav(16_000, 1, b""), "no samples"),
        (wav(16_000, 0, b"\0\0" * 100), r"memo\.wav is damaged"),
        (wav(1, 1, b"\0\0" * 100), "sample rate of 1 Hz"),
        (saved(np.array([0, np.nan, 0], dtype=np.float32), 16_000, subtype="FLOAT"), "not a number at 0.000 s"),
        (saved(np.array([np.inf], dtype=np.float32), 16_000, subtype="FLOAT"), "not a number"),
    ],
    ids=[
        "empty",
        "text",
        "M4A",
        "no samples",
        "no channels",
        "1 Hz",
        "NaN",
        "infinity",
    ],  # a WAV of floats holds a time
)
def test_what_is_no_sound_is_refused_by_name(content: bytes, claim: str, tmp_path: Path) -> None:
    path = tmp_path / "memo.wav"
    path.write_bytes(content)
    with pytest.raises(InputError, match=claim) as raised:
        read_waveform(path)
    assert_one_line(raised.value)


def test_missing_file_names_the_path(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"nowhere\.wav: No such file.*check the path"):
        read_waveform(tmp_path / "nowhere.wav")


@pytest.mark.parametrize(
    ("array", "rate_hz", "claim"),
    [
        (np.zeros(0, dtype=np.float32), 16_000, "no samples"),
        (np.zeros((100, 0), dtype=np.float32), 16_000, "no samples .*no channels"),
        (np.zeros((2, 100), dtype=np.float32), 16_000, "transpose"),
        (np.zeros((4, 2, 2), dtype=np.float32), 16_000, "transpose"),
        (np.zeros(9, dtype=np.uint8), 16_000, "no known scale"),
        (np.zeros(9, dtype=np.float32), 0, "sample rate of 0 Hz"),
        (np.zeros(1, dtype=np.float32), 192_000, "too short"),
    ],
)
def test_array_that_is_no_sound_is_refused(array: NDArray[np.float32], rate_hz: int, claim: str) -> None:
    with pytest.raises(InputError, match=claim) as raised:
        read_waveform((array, rate_hz))
    assert_one_line(raised.value)


def test_truncated_flac_is_refused_not_shortened() -> None:
    noise = np.random.default_rng(0).uniform(-0.5, 0.5, 16_000).astype(np.float32)
    data = saved(noise, 16_000, "FLAC")
    for length in range(0, len(data) - 100, len(data) // 20):
        with pytest.raises(InputError) as raised:
            read_waveform(data[:length])
        assert_one_line(raised.value)


@pytest.mark.parametrize(
    ("format_name", "subtype"),
    [
        *(("WAV", "PCM_16"), ("WAV", "FLOAT"), ("WAV", "IMA_ADPCM"), ("WAVEX", "PCM_24"), ("RF64", "PCM_16")),
        *(("AIFF", "PCM_16"), ("OGG", "VORBIS"), ("OGG", "OPUS")),
    ],
)
def test_cut_sound_is_refused_not_shortened(format_name: str, subtype: str, tmp_path: Path) -> None:
    noise = np.random.default_rng(0).uniform(-0.5, 0.5, 16_000 * 8).astype(np.float32)
    data = saved(noise, 16_000, format_name, subtype)
    path = tmp_path / "memo"
    path.write_bytes(data)
    assert len(read_waveform(path)) == pytest.approx(len(noise), abs=2400)
    for length in [*range(len(data) // 10, len(data) - 1, len(data) // 10), len(data) - 1]:
        path.write_bytes(data[:length])
        for source in (path, data[:length]):
            with pytest.raises(InputError, match=r"ends early.*save or download it again") as raised:
                read_waveform(source)
            assert_one_line(raised.value)


def test_ogg_cut_between_two_pages_is_refused() -> None:
    noise = np.random.default_rng(0).uniform(-0.5, 0.5, 16_000 * 8).astype(np.float32)
    data = saved(noise, 16_000, "OGG", "VORBIS")
    with pytest.raises(InputError, match="ends early: its last page does not end the stream"):
        read_waveform(data[: data.rindex(b"OggS")])


@pytest.mark.parametrize("size", [0x7F000000, 0x7FFFF000, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF])
def test_wav_written_into_a_pipe_is_read_whole(size: int) -> None:
    data = wav(16_000, 1, b"\1\2" * 1000)
    place = data.index(b"data") + 4
    assert len(read_waveform(data[:place] + struct.pack("<I", size) + data[place + 4 :])) == 1000


def test_chunks_before_and_after_the_samples_are_passed_over() -> None:
    data = wav(16_000, 1, b"\1\2" * 1000)
    place = data.index(b"data")
    odd = b"LIST" + struct.pack("<I", 3) + b"abc\0"
    assert len(read_waveform(data[:place] + odd + data[place:] + odd)) == 1000
    with pytest.raises(InputError, match="1,990 of 2,000 bytes"):
        read_waveform((data[:place] + odd + data[place:])[:-10])


@settings(max_examples=150, deadline=None)
@given(
    format_name=st.sampled_from(["WAV", "FLAC", "OGG", "AIFF", "MP3"]),
    flips=st.lists(st.tuples(st.integers(0, 300), st.integers(0, 255)), max_size=6),
    cut=st.integers(1, 6000),
)
def test_damaged_sound_is_read_or_refused(format_name: str, flips: list[tuple[int, int]], cut: int) -> None:
    data = bytearray(saved(tone(300, 16_000, 0.15), 16_000, format_name))
    for place, value in flips:
        data[place % len(data)] = value
    try:
        heard = read_waveform(bytes(data[:cut]))
    except InputError as error:
        assert_one_line(error)
    else:
        assert len(heard) > 0
        assert np.isfinite(heard).all()


@pytest.mark.reference
@pytest.mark.parametrize("length", [1, 2, 639, 640, 641, 1280, 9_999])
def test_frames_equal_live_reference(length: int) -> None:
    assert np.array_equal(frames(sound(length)), reference_frames(sound(length)))
