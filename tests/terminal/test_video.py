"""Videos from the command line, and what is no video."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.inputs.clips import clip, numbered, tone
from tests.terminal.conftest import Run


@pytest.fixture(scope="module")
def films(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with clip.mp4 (2 s with sound), mute.mp4, song.m4a and what cannot be read."""
    folder = tmp_path_factory.mktemp("films")
    (folder / "clip.mp4").write_bytes(clip(numbered(20), fps=10, sound=tone(2)))
    (folder / "mute.mp4").write_bytes(clip(numbered(20), fps=10))
    (folder / "long.mp4").write_bytes(clip(numbered(62), fps=1))
    (folder / "song.m4a").write_bytes(clip([], "ipod", sound=tone(1)))
    (folder / "text.mp4").write_text("This is no video.", encoding="utf-8")
    (folder / "empty.mp4").write_bytes(b"")
    return folder


def test_video_is_seen_as_frames(run: Run, films: Path) -> None:
    ended = run("ask", "What?", "--video", films / "clip.mp4", "-n", 3, "--json")
    found = json.loads(ended.out)
    assert (found["video_tokens"], found["image_tokens"], found["audio_tokens"]) == (120, 0, 0)
    assert "clip.mp4 96x64 2.0 s, 2 of 20 frames, one every 1.00 s -> 120 tokens" in ended.err
    assert "(120 video)" in ended.err


def test_video_longer_than_its_frames_says_so(run: Run, films: Path) -> None:
    ended = run("chat", stdin=f"/video {films / 'long.mp4'}\n".encode())
    assert ended.code == 0
    assert "long.mp4 96x64 62.0 s, 32 of 62 frames, one every 1.94 s -> 1,920 tokens" in ended.err


def test_sound_and_frames_and_detail_are_asked_for(run: Run, films: Path) -> None:
    asked = ("ask", "What?", "--video", films / "clip.mp4", "-n", 1, "--json")
    found = json.loads(run(*asked, "--sound", "--frames", 3).out)
    assert found["video_tokens"] == 180
    assert 50 <= found["audio_tokens"] <= 52
    assert json.loads(run(*asked, "--frames", 1, "--detail", 140).out)["video_tokens"] == 126


def test_video_can_be_piped_in(run: Run, films: Path) -> None:
    data = (films / "clip.mp4").read_bytes()
    ended = run("ask", "What?", "--video", "-", "--sound", "-n", 1, "--json", stdin=data)
    found = json.loads(ended.out)
    assert found["video_tokens"] == 120
    assert found["audio_tokens"] > 0


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        (("--sound",), "--sound has no effect without a video; add --video FILE"),
        (("--frames", "3"), "--frames has no effect without a video"),
        (("--video", "-", "--image", "-"), "both read stdin"),
    ],
)
def test_flags_without_a_video_are_wrong_usage(run: Run, flags: tuple[str, ...], told: str) -> None:
    ended = run("ask", "What?", *flags)
    assert (ended.code, ended.out) == (2, "")
    assert told in ended.err


@pytest.mark.parametrize(
    ("flags", "file", "told"),
    [
        (("--video",), "song.m4a", "song.m4a has sound but no pictures; attach it as audio"),
        (("--video",), "text.mp4", "text.mp4 is not a video that can be read"),
        (("--video",), "empty.mp4", "empty.mp4 is empty (0 bytes)"),
        (("--video",), "missing.mp4", "cannot open the video"),
        (("--sound", "--video"), "mute.mp4", "mute.mp4 has no sound track"),
        (("--audio",), "mute.mp4", "mute.mp4 has no sound track"),
        (("--audio",), "text.mp4", "text.mp4 is not a sound"),
    ],
)
def test_what_cannot_be_seen_or_heard_is_one_line(
    run: Run, films: Path, flags: tuple[str, ...], file: str, told: str
) -> None:
    ended = run("ask", "What?", *flags, films / file)
    assert (ended.code, ended.out, len(ended.errors)) == (1, "", 1)
    assert told in ended.errors[0]


def test_caption_takes_videos_beside_pictures(run: Run, films: Path, media: Path) -> None:
    ended = run("caption", films / "clip.mp4", media / "picture.png", "-n", 2, "--json")
    first, second = (json.loads(line) for line in ended.out.splitlines())
    assert (first["video_tokens"], first["image_tokens"]) == (120, 0)
    assert (second["video_tokens"], second["image_tokens"]) == (0, 63)


def test_caption_takes_the_sound_and_as_many_frames_as_asked_for(run: Run, films: Path, media: Path) -> None:
    asked = ("caption", films / "clip.mp4", "-n", 1, "--json", "--resume", "--frames", 3)
    ended = run(*asked, films / "mute.mp4", media / "picture.png", "--sound")
    film, picture = (json.loads(line) for line in ended.out.splitlines())
    assert film["video_tokens"] == 180
    assert 50 <= film["audio_tokens"] <= 52
    assert (picture["image_tokens"], picture["audio_tokens"]) == (63, 0)
    assert "3 of 20 frames, one every 0.67 s -> 180 tokens; its sound: clip.mp4 2.0 s -> " in ended.err
    assert ended.code == 1
    assert "mute.mp4 has no sound track" in ended.err
    assert json.loads(run(*asked).out)["audio_tokens"] == 0  # another question


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        (("--sound",), "--sound has no effect without a video; name one"),
        (("--frames", "3"), "--frames has no effect without a video; name one"),
        (("--sound", "--ocr", "-"), "--sound has no effect without a video; --ocr reads pictures"),
    ],
)
def test_caption_says_that_there_is_no_video(run: Run, media: Path, flags: tuple[str, ...], told: str) -> None:
    ended = run("caption", media / "picture.png", *flags)
    assert (ended.code, ended.out) == (2, "")
    assert told in ended.err


def test_chat_attaches_a_video_and_its_sound(run: Run, films: Path) -> None:
    lines = f"/video {films / 'clip.mp4'}\n/audio {films / 'clip.mp4'}\nWhat?\nAnd now?\n"
    ended = run("chat", "-n", 3, "--video", films / "mute.mp4", stdin=lines.encode())
    assert ended.code == 0
    assert "mute.mp4 96x64 2.0 s, 2 of 20 frames" in ended.err
    assert "clip.mp4 96x64 2.0 s, 2 of 20 frames, one every 1.00 s -> 120 tokens (2 attached)" in ended.err
    assert "(3 attached)" in ended.err
    second = [line for line in ended.err.splitlines() if "re-used" in line][1]
    assert int(second.split("re-used ")[1].split()[0].replace(",", "")) > 240
