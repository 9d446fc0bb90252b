from __future__ import annotations

import os
import shlex
import tempfile
import time
import unicodedata
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gemma_mlx.terminal.screen import dropped
from gemma_mlx.terminal.screen.dropped import Dropped, dropped_paths


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    path = tmp_path / "a b.PNG"
    path.touch()
    return path


def _escaped(path: Path) -> str:
    return "".join(ch if ch.isalnum() or ch in "/._-" else f"\\{ch}" for ch in str(path))


WAYS = {
    "single quotes": lambda path: shlex.quote(str(path)),
    "double quotes": lambda path: '"' + "".join(f"\\{ch}" if ch in '\\"$`' else ch for ch in str(path)) + '"',
    "backslashes": _escaped,
    "URL": Path.as_uri,
}
NAMES = st.text(
    st.characters(exclude_categories=["Cs"], exclude_characters="/\0"), min_size=1, max_size=40
).map(lambda stem: stem[:20] + ".jpg")  # fmt: skip


@settings(deadline=None)
@given(st.lists(st.tuples(NAMES, st.sampled_from(sorted(WAYS))), min_size=1, max_size=4), st.sampled_from([" ", "\n"]))
def test_names_of_any_characters_are_found_however_they_are_written(names: list[tuple[str, str]], between: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        paths = [Path(folder, name) for name, _ in names]
        for path in paths:
            path.touch()
        pasted = between.join(WAYS[way](path) for path, (_, way) in zip(paths, names, strict=True)) + " "
        assert dropped_paths(pasted) == Dropped("", tuple(paths))


@pytest.mark.parametrize("way", WAYS)
def test_the_text_around_stays(way: str, picture: Path) -> None:
    written = WAYS[way](picture)
    assert dropped_paths(f"what's this {written}") == Dropped("what's this", (picture,))
    assert dropped_paths(f"Is {written} older\nthan {written}?\n") == Dropped("Is older\nthan?", (picture, picture))
    assert dropped_paths(f"{written}\r\n{written}\r") == Dropped("", (picture, picture))


def test_a_name_as_it_is(picture: Path) -> None:
    assert dropped_paths(f"{picture} ") == Dropped("", (picture,))
    assert dropped_paths(f"read this: {picture}\nall of it") == Dropped("read this:\nall of it", (picture,))


def test_what_follows_a_name_in_a_sentence(picture: Path) -> None:
    assert dropped_paths(f'Is it "{picture}"?!') == Dropped("Is it?!", (picture,))
    assert dropped_paths(f'Is it "{picture}?"') is None


def test_home_and_here(picture: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(picture.parent))
    monkeypatch.chdir(picture.parent)
    assert dropped_paths("~/a\\ b.PNG") == Dropped("", (picture,))
    assert dropped_paths("./a\\ b.PNG") == Dropped("", (Path("a b.PNG"),))


@pytest.mark.parametrize("form", ["NFC", "NFD"])
def test_accents_in_both_forms(form: str, tmp_path: Path) -> None:
    path = tmp_path / unicodedata.normalize(form, "é ü.wav")  # type: ignore[arg-type]
    path.touch()
    for pasted in ("NFC", "NFD"):
        found = dropped_paths(unicodedata.normalize(pasted, shlex.quote(str(path))))  # type: ignore[arg-type]
        assert found is not None
        assert found.paths[0].samefile(path)


def test_bytes_that_are_no_utf_8(tmp_path: Path) -> None:
    path = Path(os.fsdecode(bytes(tmp_path) + b"/\xff.png"))
    with suppress(OSError):  # the disks of macOS have no such names
        path.touch()
    dropped = Dropped("", (path,)) if os.path.exists(path) else None  # noqa: PTH110  # False also where no name can be so
    assert dropped_paths(f"file://{tmp_path}/%FF.png") == dropped


def test_what_is_no_file_to_attach_is_text(picture: Path) -> None:
    folder, other, link = picture.parent, picture.parent / "a.txt", picture.parent / "gone.png"
    other.touch()
    link.symlink_to(folder / "nothing.png")
    (folder / "folder.png").mkdir()
    os.mkfifo(folder / "pipe.png")
    names = [folder, other, link, folder / "folder.png", folder / "pipe.png", folder / "none.png"]
    for name in names:
        assert dropped_paths(shlex.quote(str(name))) is None
    for text in (
        "",
        "a b.PNG",
        f"x{picture}",
        f"file://elsewhere{picture}".replace(" ", "%20"),
        "file://[/a.png",
        "file:a.png",
        "/a%00b.png /a\0b.png file:///a%00b.png",
        f"https://example.com{picture}".replace(" ", "%20"),
        "~nobody-of-that-name/a.png",
        "/" + "a" * 5000 + ".png",
        "/" + "a" * 1000 + ".png",
        "'/tmp",
    ):
        assert dropped_paths(text) is None


def test_a_long_paste_is_cheap(picture: Path) -> None:
    pieces = ["'/ ", '"/\\" ', "/\\", "/a/b.png ", "~", "file:", "x" * 1000 + " /", "/\n", "'/''"]
    for piece in pieces:
        text = piece * (2_000_000 // len(piece))
        begun_s = time.process_time()
        assert dropped_paths(text) is None
        assert time.process_time() - begun_s < 3  # what grows with the square of the length takes minutes
        assert dropped_paths(f"{shlex.quote(str(picture))} {text}") == Dropped(text.strip(), (picture,))


def test_names_after_very_many_stay_text(picture: Path) -> None:
    before = "/usr/lib " * dropped.MAX_NAMES
    assert dropped_paths(before + shlex.quote(str(picture))) is None
    assert dropped_paths(before[9:] + shlex.quote(str(picture))) == Dropped(before[9:].strip(), (picture,))
