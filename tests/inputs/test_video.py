from __future__ import annotations

import json
import tracemalloc
from fractions import Fraction
from io import BytesIO
from pathlib import Path

import av
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from gemma_mlx.errors import InputError
from gemma_mlx.inputs import video
from gemma_mlx.inputs.image import patches_of
from gemma_mlx.inputs.video import Video, is_video, prepare_video, sampled_indices, stamp
from tests.golden.make_processing import picture, sha256
from tests.golden.make_video import CLIPS, lossless_clip
from tests.inputs.clips import CONTAINERS, clip, numbered, tone

GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / "video.json").read_text(encoding="utf-8"))
FORMS = [(form, codec, {}) for form, codec, _ in CONTAINERS] + [("gif", "gif", {}), ("apng", "apng", {})]


def assert_one_line(error: InputError) -> None:
    assert "\n" not in str(error)
    assert len(str(error)) < 300


def greys(found: Video) -> list[int]:
    """The mean level of each frame at its bottom right."""
    return [round(float(frame.patches[-1].mean()) * 255) for frame in found.frames]


def level(index: int, count: int) -> int:
    return 20 + index * 200 // count


@pytest.mark.parametrize(("index", "golden"), list(enumerate(GOLDEN["clips"])))
def test_frames_and_stamps_equal_reference(index: int, golden: dict[str, object]) -> None:
    made = CLIPS[index]
    found = prepare_video(lossless_clip(*made), made.frames)
    assert list(found.stamps) == golden["stamps"]
    assert sha256(np.concatenate([frame.patches for frame in found.frames])) == golden["patches"]
    assert sha256(np.concatenate([frame.positions for frame in found.frames])) == golden["positions"]


@pytest.mark.parametrize(("form", "codec", "options"), FORMS)
def test_every_container_gives_a_frame_a_second(form: str, codec: str, options: dict[str, str]) -> None:
    sound = None if form in ("gif", "apng") else tone(4)
    sound_codec = next((sound_codec for known, _, sound_codec in CONTAINERS if known == form), "")
    found = prepare_video(clip(numbered(120), form, codec, sound=sound, sound_codec=sound_codec))
    assert found.stamps == ("00:00", "00:01", "00:02", "00:03")
    assert greys(found) == pytest.approx([level(30 * second, 120) for second in range(4)], abs=4)
    assert (found.frames_in_file, found.duration_s) == (120, pytest.approx(4, abs=0.01))
    assert {(frame.width_px, frame.height_px) for frame in found.frames} == {(96, 64)}


def test_long_video_is_sampled_over_its_whole_length() -> None:
    found = prepare_video(clip(numbered(600), fps=5))
    assert len(found.frames) == 32
    assert (found.frames_in_file, found.duration_s) == (600, 120)
    assert found.stamps[:3] == ("00:00", "00:03", "00:07")
    assert found.stamps[-1] == "01:56"
    assert greys(found) == pytest.approx([level(index * 600 // 32, 600) for index in range(32)], abs=4)


def test_as_many_frames_as_asked_for() -> None:
    data = clip(numbered(30))
    assert prepare_video(data).stamps == ("00:00",)
    found = prepare_video(data, 6)
    assert greys(found) == pytest.approx([level(index * 5, 30) for index in range(6)], abs=4)
    assert len(prepare_video(data, 60).frames) == 30
    for wrong in (0, 61, -1, "many", 1.5):
        with pytest.raises(InputError, match=f"{wrong!r} frames of a video .* 1 to 60"):
            prepare_video(data, wrong)  # type: ignore[arg-type]


def test_frames_without_a_fixed_rate_are_those_on_show() -> None:
    # 20 frames: one stands for 8 seconds, then 19 come within the last two.
    times = [0, *(8000 + 100 * index for index in range(19))]
    found = prepare_video(clip(numbered(20), "matroska", times=times))
    assert found.stamps == tuple(f"00:{int(index * 9.83 / 20):02d}" for index in sampled_indices(20, 20 / 9.83))
    assert found.duration_s == pytest.approx(9.9, abs=0.1)
    assert greys(found)[:8] == pytest.approx([level(0, 20)] * 8, abs=4)
    assert greys(found)[8] > level(4, 20)


@pytest.mark.parametrize("turned_degrees", [0, 90, 180, -90])
def test_turned_video_is_upright(turned_degrees: int) -> None:
    found = prepare_video(clip(numbered(30), turned_degrees=turned_degrees))
    frame = found.frames[0]
    assert (frame.width_px, frame.height_px) == ((64, 96) if turned_degrees % 180 else (96, 64))
    # The corner at the top left goes around against the clock.
    corners = {0: (0, 0), 90: (0, -1), 180: (-1, -1), -90: (-1, 0)}
    across, down = frame.resized_width_px // 48, frame.resized_height_px // 48
    grid = frame.patches.reshape(down, across, -1).mean(axis=-1)
    column, row = corners[turned_degrees]
    assert grid[row, column] == grid.max() > 0.8


def test_transparent_frames_lie_on_white() -> None:
    red = Image.new("RGBA", (48, 48), (255, 0, 0, 255))
    clear = Image.new("RGBA", (48, 48), (255, 0, 0, 0))
    file = BytesIO()
    red.save(file, "PNG", save_all=True, append_images=[clear], duration=1000, disposal=1)
    found = prepare_video(file.getvalue(), 2)
    assert found.frames[0].patches[0, :3].tolist() == [1, 0, 0]
    assert found.frames[1].patches[0, :3].tolist() == [1, 1, 1]


def test_frames_far_apart_are_jumped_to(monkeypatch: pytest.MonkeyPatch) -> None:
    pictures = numbered(600)
    data = clip(pictures, fps=5, codec_options={"g": "15", "bf": "2"})
    decoded = 0
    original = av.container.InputContainer.decode

    def counting(container: object, *streams: object) -> object:
        nonlocal decoded
        for frame in original(container, *streams):  # type: ignore[arg-type]
            decoded += 1
            yield frame

    class Opened:
        def __init__(self, container: av.container.InputContainer) -> None:
            self._container = container

        def __enter__(self) -> Opened:
            return self

        def __exit__(self, *exception: object) -> None:
            self._container.close()

        def __getattr__(self, name: str) -> object:
            return getattr(self._container, name)

        def decode(self, *streams: object) -> object:
            return counting(self._container, *streams)

    opened = av.open
    monkeypatch.setattr(av, "open", lambda *given, **named: Opened(opened(*given, **named)))
    found = prepare_video(data, 8)
    assert greys(found) == pytest.approx([level(index * 75, 600) for index in range(8)], abs=4)
    assert decoded < 8 * 15 < 525


def test_frames_are_found_where_jumping_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    data = clip(numbered(120), codec_options={"g": "10"})
    expected = greys(prepare_video(data))
    original, tried = video._decoded, []

    def without_jumping(*given: object, jump: bool) -> object:
        tried.append(jump)
        return None if jump else original(*given, jump=jump)  # type: ignore[arg-type]

    monkeypatch.setattr(video, "_decoded", without_jumping)
    assert greys(prepare_video(data)) == expected
    assert tried == [True, False]


def test_memory_does_not_grow_with_the_length() -> None:
    peaks = []
    for count in (64, 320):
        data = clip(numbered(count, 160, 120), fps=1, codec_options={"g": "5"})
        tracemalloc.start()
        prepare_video(data, 2)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < peaks[0] * 1.05 + 1e6


@settings(deadline=None)
@given(count=st.integers(1, 100_000), fps=st.floats(0.1, 240), frames=st.none() | st.integers(1, 60))
def test_sampled_frames_are_spread_evenly(count: int, fps: float, frames: int | None) -> None:
    indices = sampled_indices(count, fps, frames)
    assert indices[0] == 0
    assert indices == sorted(set(indices))
    assert indices[-1] < count
    steps = np.diff([*indices, count])
    assert steps.max() - steps.min() <= 1
    if frames is None:
        assert len(indices) <= min(32, max(1, count / fps), count)
    else:
        assert len(indices) == min(frames, count)


@pytest.mark.parametrize(("seconds", "text"), [(0, "00:00"), (59.99, "00:59"), (75.9, "01:15"), (3725, "62:05")])
def test_stamp_counts_minutes_on(seconds: float, text: str) -> None:
    assert stamp(seconds) == text


@pytest.mark.parametrize(
    ("data", "claim"),
    [
        (b"", r"clip\.mp4 is empty \(0 bytes\)"),
        (b"This is no video.\n" * 20, r"clip\.mp4 is not a video that can be read"),
        (b"#EXTM3U\n#EXTINF:10,\nfile:///etc/hostname\n#EXT-X-ENDLIST\n", "not a video"),
        (b"ffconcat version 1.0\nfile 'other.mp4'\n", "not a video"),
        (clip([], "ipod", sound=tone(1)), r"clip\.mp4 has sound but no pictures; attach it as audio"),
        (clip(numbered(9))[:600], r"clip\.mp4 ends early"),
        (b"\0\0\0\x20ftypisom\0\0\0\0", r"clip\.mp4 ends early: its table of contents is missing"),
    ],
)
def test_what_is_no_video_is_refused_by_name(
    data: bytes, claim: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "clip.mp4"
    path.write_bytes(data)
    (tmp_path / "other.mp4").write_bytes(clip(numbered(2)))
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=claim) as raised:
        prepare_video(path, name=path.name)
    assert_one_line(raised.value)


def test_missing_video_names_the_path(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"cannot open the video .*nowhere\.mp4: No such file.*check the path"):
        prepare_video(tmp_path / "nowhere.mp4")


def test_video_without_frames_is_refused() -> None:
    with pytest.raises(InputError, match=r"holds no frames|ends early|is damaged|is not a video") as raised:
        prepare_video(empty_video())
    assert_one_line(raised.value)


def empty_video() -> bytes:
    file = BytesIO()
    with av.open(file, "w", format="matroska") as container:
        stream = container.add_stream("mpeg4", rate=30)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        container.start_encoding()
    return file.getvalue()


def test_cover_of_a_song_is_no_video(tmp_path: Path) -> None:
    path = tmp_path / "song.m4a"
    cover = BytesIO()
    Image.new("RGB", (64, 64)).save(cover, "JPEG")
    with av.open(path, "w", format="mp4") as container:
        sound = container.add_stream("aac", rate=48_000, layout="mono")
        picture_stream = container.add_stream("mjpeg", rate=1)
        picture_stream.width = picture_stream.height = 64
        picture_stream.pix_fmt = "yuvj420p"
        picture_stream.disposition = av.stream.Disposition.attached_pic
        frame = av.AudioFrame.from_ndarray(tone(1)[None], format="fltp", layout="mono")
        frame.sample_rate = 48_000
        container.mux(sound.encode(frame))
        container.mux(sound.encode(None))
        packet = av.Packet(cover.getvalue())
        packet.stream, packet.pts, packet.dts, packet.time_base = picture_stream, 0, 0, Fraction(1, 1)
        container.mux(packet)
    with pytest.raises(InputError, match="has sound but no pictures"):
        prepare_video(path)


def test_huge_frames_are_refused_before_they_are_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    data = clip(numbered(2, 320, 240))
    monkeypatch.setattr(video, "MAX_PIXELS", 320 * 240 - 1)
    monkeypatch.setattr(video, "_decoded", lambda *_, **__: pytest.fail("decoded"))
    with pytest.raises(InputError, match=r"frames of 320 x 240 = 76,800 pixels, more than the limit"):
        prepare_video(data)


@pytest.mark.parametrize(
    ("form", "codec", "options"),
    [
        ("mp4", "libx264", {"movflags": "faststart"}),
        ("mp4", "libx264", {}),
        ("matroska", "libx264", {}),
        ("avi", "mpeg4", {}),
        ("gif", "gif", {}),
        ("apng", "apng", {}),
    ],
)
def test_cut_video_is_refused_not_shortened(form: str, codec: str, options: dict[str, str], tmp_path: Path) -> None:
    path = tmp_path / "clip"
    noise = np.random.default_rng(0).integers(0, 256, (90, 64, 96, 3), dtype=np.uint8)
    with path.open("wb") as file:
        file.write(faststart(list(noise), form, codec, options, tmp_path))
    data = path.read_bytes()
    assert prepare_video(path).frames_in_file == 90
    for length in range(len(data) // 7, len(data) * 9 // 10, len(data) // 7):
        path.write_bytes(data[:length])
        with pytest.raises(InputError, match=r"ends early|is damaged|is not a video|has sound|no frames") as raised:
            prepare_video(path, name=path.name)
        assert_one_line(raised.value)


def faststart(pictures: list[NDArray[np.uint8]], form: str, codec: str, options: dict[str, str], folder: Path) -> bytes:
    """A clip written to a file: an index at the front needs a file that can be read again."""
    with av.open(folder / "written", "w", format=form, options=options) as container:
        stream = container.add_stream(codec, rate=30)
        stream.height, stream.width = pictures[0].shape[:2]
        stream.pix_fmt = {"gif": "rgb8", "apng": "rgb24"}.get(codec, "yuv420p")
        for picture in pictures:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode(None))
    return (folder / "written").read_bytes()


def test_files_are_told_apart_by_their_first_bytes(tmp_path: Path) -> None:
    for form, codec, _ in CONTAINERS:
        assert is_video(clip(numbered(2), form, codec))
    assert is_video(clip(numbered(2), "mpegts", options={"mpegts_m2ts_mode": "1"}))
    path = tmp_path / "photo"
    for form in ("PNG", "JPEG", "WEBP", "TIFF", "GIF", "AVIF", "BMP"):
        Image.new("RGB", (8, 8)).save(path, form)
        assert not is_video(path)
    assert not is_video(tmp_path / "nowhere")
    assert not is_video(b"")
    assert not is_video(b"GG")
    assert not is_video(b"RIFF\0\0\0\0WAVEfmt ")


@settings(max_examples=40, deadline=None)
@given(flips=st.lists(st.tuples(st.integers(0, 10_000), st.integers(0, 255)), min_size=1, max_size=8))
@example(flips=[(3771, 1)])  # a codec that nobody knows
def test_damaged_video_is_read_or_refused(flips: list[tuple[int, int]]) -> None:
    data = bytearray(DAMAGEABLE)
    for place, value in flips:
        data[place % len(data)] = value
    try:
        found = prepare_video(bytes(data), 3)
    except InputError as error:
        assert_one_line(error)
    else:
        assert len(found.frames) == min(3, found.frames_in_file)


DAMAGEABLE = clip(numbered(20), codec_options={"g": "5"})


def test_frame_without_loss_is_cut_like_a_picture() -> None:
    pixels = picture(96, 64)
    found = prepare_video(clip([pixels], "matroska", "ffv1"))
    assert np.array_equal(found.frames[0].patches, patches_of(Image.fromarray(pixels), 70, of_video=True).patches)
