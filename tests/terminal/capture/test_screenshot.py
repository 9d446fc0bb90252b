from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from gemma_mlx.errors import InputError
from gemma_mlx.home import miniature_folder
from gemma_mlx.terminal.capture import screenshot
from gemma_mlx.terminal.capture.screenshot import ShotKind, take_screenshot
from tests.terminal.capture.conftest import Program
from tests.terminal.x11 import HEIGHT_PX, WIDTH_PX, VirtualScreen

WRITE = "from PIL import Image; Image.new('RGBA', (30, 20), (255, 0, 0, 255)).save(sys.argv[-1], 'PNG')"


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where temporary files go."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


@pytest.fixture
def macos(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    monkeypatch.setattr(screenshot, "_may_see_screen", lambda: True)


def test_whole_screen_is_what_is_on_it(x_screen: VirtualScreen) -> None:
    drawn = Image.fromarray(np.random.default_rng(1).integers(0, 256, (HEIGHT_PX, WIDTH_PX, 3), dtype=np.uint8))
    x_screen.draw(drawn)
    taken = take_screenshot("screen")
    assert np.array_equal(np.asarray(taken), np.asarray(drawn))


def test_no_screen_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DISPLAY", raising=False)
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    with pytest.raises(InputError, match=r"no screen here \(DISPLAY and WAYLAND_DISPLAY"):
        take_screenshot("screen")
    monkeypatch.setenv("DISPLAY", ":64999")
    with pytest.raises(InputError, match="the screen :64999 cannot be seen"):
        take_screenshot("screen")


@pytest.mark.parametrize(
    ("kind", "flags"),
    [("region", ["-i"]), ("window", ["-o", "-iW"]), ("screen", [])],
)
def test_screencapture_writes_a_private_file_that_is_gone_at_once(
    kind: ShotKind, flags: list[str], macos: None, temporary: Path, program: Program
) -> None:
    mode = "assert pathlib.Path(sys.argv[-1]).parent.stat().st_mode & 0o777 == 0o700"
    calls = program("screencapture", f"{mode}\n{WRITE}")
    picture = take_screenshot(kind)
    assert (picture.size, picture.getpixel((0, 0))) == ((30, 20), (255, 0, 0))
    [*given, file] = json.loads(calls.read_text())
    assert given == ["-x", "-t", "png", *flags]
    assert Path(file).is_relative_to(temporary)
    assert not list(temporary.iterdir())


def test_called_off_is_one_line(macos: None, temporary: Path, program: Program) -> None:
    program("screencapture", "sys.exit(1)")
    with pytest.raises(InputError, match=r"^no picture was taken$"):
        take_screenshot("region")
    program("screencapture", "open(sys.argv[-1], 'w'); sys.exit(0)")
    with pytest.raises(InputError, match=r"^no picture was taken$"):
        take_screenshot("window")
    assert not list(temporary.iterdir())


@pytest.mark.parametrize("kind", ["region", "screen"])
def test_refused_permission_names_the_setting(kind: ShotKind, macos: None, temporary: Path, program: Program) -> None:
    program("screencapture", "sys.exit('could not create image from display')")
    with pytest.raises(InputError, match="Privacy & Security > Screen & System Audio Recording and restart"):
        take_screenshot(kind)
    assert not list(temporary.iterdir())


def test_another_failure_is_told_as_it_is(macos: None, program: Program) -> None:
    program("screencapture", "sys.exit('No space left')")
    with pytest.raises(InputError, match=r"^no picture was taken \(No space left\); try again$"):
        take_screenshot("screen")
    program("screencapture", "")
    with pytest.raises(InputError, match="Screen & System Audio Recording"):
        take_screenshot("screen")


def test_nothing_is_taken_where_macos_says_no(monkeypatch: pytest.MonkeyPatch, macos: None, program: Program) -> None:
    calls = program("screencapture", WRITE)
    monkeypatch.setattr(screenshot, "_may_see_screen", lambda: False)
    with pytest.raises(InputError, match="Screen & System Audio Recording"):
        take_screenshot("region")
    assert not calls.exists()


def test_macos_is_asked_once_for_the_permission(monkeypatch: pytest.MonkeyPatch) -> None:
    class Function:
        def __init__(self, answer: bool) -> None:
            self.answer, self.calls = answer, 0

        def __call__(self) -> bool:
            self.calls += 1
            return self.answer

    class Graphics:
        CGPreflightScreenCaptureAccess = Function(False)
        CGRequestScreenCaptureAccess = Function(False)

    monkeypatch.setattr(screenshot.ctypes, "CDLL", lambda path: Graphics)
    assert not screenshot._may_see_screen()
    Graphics.CGPreflightScreenCaptureAccess.answer = True
    assert screenshot._may_see_screen()
    assert Graphics.CGRequestScreenCaptureAccess.calls == 1


def test_ctrl_c_leaves_nothing(monkeypatch: pytest.MonkeyPatch, macos: None, temporary: Path) -> None:
    def interrupted(arguments: list[str], **_: Any) -> None:
        Path(arguments[-1]).write_bytes(b"half a picture")
        raise KeyboardInterrupt

    monkeypatch.setattr(subprocess, "run", interrupted)
    with pytest.raises(KeyboardInterrupt):
        take_screenshot("screen")
    assert not list(temporary.iterdir())


def test_a_program_that_hangs_is_not_waited_for(
    monkeypatch: pytest.MonkeyPatch, macos: None, temporary: Path, program: Program
) -> None:
    monkeypatch.setattr(screenshot, "_WHOLE_SCREEN_S", 0.5)
    program("screencapture", "import time; time.sleep(60)")
    with pytest.raises(InputError, match=r"screencapture hung for 0\.5 s"):
        take_screenshot("screen")
    assert not list(temporary.iterdir())


def test_half_a_picture_is_refused(macos: None, temporary: Path, program: Program) -> None:
    program("screencapture", f"open(sys.argv[-1], 'wb').write(open({str(_scene())!r}, 'rb').read()[:200])")
    with pytest.raises(InputError, match=r"screenshot.png is (damaged|not a picture)"):
        take_screenshot("screen")
    assert not list(temporary.iterdir())


def test_region_on_x11_needs_a_program(x_screen: VirtualScreen, temporary: Path, program: Program) -> None:
    with pytest.raises(InputError, match="nothing here can take a picture of a region; install one of maim, import"):
        take_screenshot("region")
    calls = program("maim", WRITE)
    assert take_screenshot("region").size == (30, 20)
    assert json.loads(calls.read_text())[:2] == ["-s", "-u"]
    program("maim", "sys.exit('Selection was cancelled by keystroke or right-click.')")
    with pytest.raises(InputError, match=r"^no picture was taken$"):
        take_screenshot("window")
    program("maim", "sys.exit('Failed to grab\\nthe pointer')")
    with pytest.raises(InputError, match=r"^no picture was taken \(Failed to grab the pointer\); try again$"):
        take_screenshot("window")


def test_wayland(monkeypatch: pytest.MonkeyPatch, temporary: Path, program: Program) -> None:
    monkeypatch.setenv("WAYLAND_DISPLAY", "wayland-0")
    with pytest.raises(InputError, match="slurp with grim, gnome-screenshot, spectacle"):
        take_screenshot("region")
    with pytest.raises(InputError, match="take a region instead"):
        take_screenshot("window")
    calls = program("grim", f"open({str(temporary.parent / 'place')!r}, 'w').write(sys.stdin.read())\n{WRITE}")
    assert take_screenshot("screen").size == (30, 20)
    program("slurp", "print('10,20 30x40')")
    assert take_screenshot("region").size == (30, 20)
    assert [json.loads(line)[:-1] for line in calls.read_text().splitlines()] == [[], ["-g", "-"]]
    assert (temporary.parent / "place").read_text() == "10,20 30x40\n"
    program("slurp", "sys.exit('selection cancelled')")
    with pytest.raises(InputError, match=r"^no picture was taken$"):
        take_screenshot("region")
    assert not list(temporary.iterdir())


def _scene() -> Path:
    return miniature_folder().parent / "samples" / "scene.png"
