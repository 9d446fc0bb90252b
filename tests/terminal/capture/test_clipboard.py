from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from gemma_mlx.errors import InputError
from gemma_mlx.terminal.capture import clipboard
from gemma_mlx.terminal.capture.clipboard import clipboard_picture, copy_text
from tests.programs import require
from tests.terminal.capture.conftest import Program
from tests.terminal.x11 import VirtualScreen

Offer = Callable[[str, bytes], None]
PIXELS = np.random.default_rng(3).integers(0, 256, (20, 30, 3), dtype=np.uint8)


@pytest.fixture
def offer(x_screen: VirtualScreen) -> Iterator[Offer]:
    """Puts bytes of a type into the clipboard of the screen, as another program would."""
    require("xclip")
    owners: list[subprocess.Popen[bytes]] = []

    def put(kind: str, content: bytes) -> None:
        command = ["xclip", "-quiet", "-selection", "clipboard", "-t", kind, "-i"]
        owner = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        owners.append(owner)
        assert owner.stdin is not None
        owner.stdin.write(content)
        owner.stdin.close()
        _wait_for(lambda: kind.encode() in _held("TARGETS").split())

    yield put
    for owner in owners:
        owner.kill()
        owner.wait()


def _held(kind: str) -> bytes:
    command = ["xclip", "-selection", "clipboard", "-o", "-t", kind]
    return subprocess.run(command, capture_output=True).stdout


def _wait_for(true: Callable[[], bool]) -> None:
    """xclip returns a moment before the clipboard is its own."""
    end_s = time.monotonic() + 20
    while not true():
        assert time.monotonic() < end_s
        time.sleep(0.02)


def _bytes(kind: str) -> bytes:
    file = BytesIO()
    Image.fromarray(PIXELS).save(file, kind)
    return file.getvalue()


@pytest.mark.parametrize("kind", ["png", "bmp", "tiff"])
def test_a_copied_picture(kind: str, offer: Offer) -> None:
    offer(f"image/{kind}", _bytes(kind))
    assert np.array_equal(np.asarray(clipboard_picture()), PIXELS)


def test_a_copied_file(offer: Offer, tmp_path: Path) -> None:
    path = tmp_path / "a b é.png"
    path.write_bytes(_bytes("png"))
    offer("text/uri-list", f"file:///nothing.txt\r\n{path.as_uri()}\r\n".encode())
    assert np.array_equal(np.asarray(clipboard_picture()), PIXELS)


def test_a_copied_text_is_no_picture(offer: Offer) -> None:
    offer("UTF8_STRING", b"/tmp/a.png")
    with pytest.raises(InputError, match="holds no picture; copy one first"):
        clipboard_picture()
    offer("image/png", b"no PNG at all")
    with pytest.raises(InputError, match="not a picture that can be read"):
        clipboard_picture()


def test_text_goes_to_the_clipboard_and_stays(x_screen: VirtualScreen) -> None:
    require("xclip")
    text = "naïve 日本\n" * 20_000
    copy_text(text)
    _wait_for(lambda: _held("UTF8_STRING").decode() == text)
    copy_text("a \udcff")
    _wait_for(lambda: _held("UTF8_STRING") == b"a ?")


def test_without_a_screen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DISPLAY", raising=False)
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    for use in (clipboard_picture, lambda: copy_text("a")):
        with pytest.raises(InputError, match="there is no clipboard here"):
            use()
    if shutil.which("xclip"):
        monkeypatch.setenv("DISPLAY", ":64999")
        with pytest.raises(InputError, match=r"cannot be reached.*open display"):
            clipboard_picture()
        with pytest.raises(InputError, match=r"nothing was copied .*open display"):
            copy_text("a")


@pytest.mark.parametrize(
    ("variable", "reads", "writes"),
    [("DISPLAY", "xclip", "xclip"), ("WAYLAND_DISPLAY", "wl-clipboard", "wl-clipboard")],
)
def test_a_missing_program_is_named(
    variable: str, reads: str, writes: str, monkeypatch: pytest.MonkeyPatch, program: Program
) -> None:
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    monkeypatch.setenv(variable, ":9")
    with pytest.raises(InputError, match=f"install {reads}"):
        clipboard_picture()
    with pytest.raises(InputError, match=f"install {writes}"):
        copy_text("a")


def test_wayland(monkeypatch: pytest.MonkeyPatch, program: Program, tmp_path: Path) -> None:
    monkeypatch.setenv("WAYLAND_DISPLAY", "wayland-0")
    (tmp_path / "a.png").write_bytes(_bytes("png"))
    show = f"sys.stdout.buffer.write(open({str(tmp_path / 'a.png')!r}, 'rb').read())"
    program("wl-paste", f"print('text/plain\\nimage/png') if '--list-types' in sys.argv else {show}")
    assert np.array_equal(np.asarray(clipboard_picture()), PIXELS)
    copied = tmp_path / "copied"
    program("wl-copy", f"open({str(copied)!r}, 'wb').write(sys.stdin.buffer.read())")
    copy_text("é")
    assert copied.read_text() == "é"


def test_a_program_that_hangs_is_not_waited_for(monkeypatch: pytest.MonkeyPatch, program: Program) -> None:
    monkeypatch.setattr(clipboard, "_LIMIT_S", 0.3)
    monkeypatch.setenv("WAYLAND_DISPLAY", "wayland-0")
    for name in ("wl-paste", "wl-copy"):
        program(name, "import time; time.sleep(60)")
    with pytest.raises(InputError, match="gave nothing for"):
        clipboard_picture()
    with pytest.raises(InputError, match="wl-copy hung for"):
        copy_text("a")


def test_macos(monkeypatch: pytest.MonkeyPatch, program: Program, tmp_path: Path) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    picture = f"print('«data PNGf{_bytes('png').hex().upper()}»')"
    calls = program("osascript", f"sys.exit(1) if 'furl' in sys.argv[2] else {picture}")
    assert np.array_equal(np.asarray(clipboard_picture()), PIXELS)
    assert len(calls.read_text().splitlines()) == 2
    path = tmp_path / "copied file.jpg"
    Image.new("RGB", (7, 5)).save(path)
    program("osascript", f"print({str(path)!r}) if 'furl' in sys.argv[2] else {picture}")
    assert clipboard_picture().size == (7, 5)
    program("osascript", "sys.exit('execution error: (-1700)')")
    with pytest.raises(InputError, match="holds no picture"):
        clipboard_picture()


def test_text_on_macos_is_utf_8(monkeypatch: pytest.MonkeyPatch, program: Program, tmp_path: Path) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    copied = tmp_path / "copied"
    body = f"import os; open({str(copied)!r}, 'w').write(json.dumps([os.environ['LC_ALL'], sys.stdin.read()]))"
    calls = program("pbcopy", body)
    copy_text("é")
    assert json.loads(copied.read_text()) == ["en_US.UTF-8", "é"]
    assert json.loads(calls.read_text()) == []
