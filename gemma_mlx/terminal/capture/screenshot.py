"""A picture of the screen, of a part that a person chooses with the pointer, or of a window.

macOS has `screencapture`. On X11, Pillow reads the whole screen by itself; to choose there, and on Wayland, the first
program of the desktop that is installed takes the picture. Such a program writes a file: it lies in a folder that its
owner alone may read, and is gone when the picture is in memory.
"""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Literal

from PIL import Image, ImageGrab

from gemma_mlx.errors import InputError
from gemma_mlx.inputs.image import open_image

ShotKind = Literal["region", "window", "screen"]

_NOT_TAKEN = "no picture was taken"
_REFUSED = (
    "the screen cannot be seen: allow this terminal under System Settings > Privacy & Security > "
    "Screen & System Audio Recording and restart it; over ssh there is no screen"
)
_CORE_GRAPHICS = "/System/Library/Frameworks/CoreGraphics.framework/CoreGraphics"
_WHOLE_SCREEN_S = 30
"""With nothing to choose, a program that takes longer hangs."""

_FILE = "FILE"
"""In a command, the place of the file to write."""
_MACOS: dict[ShotKind, tuple[str, ...]] = {
    "region": ("screencapture", "-x", "-t", "png", "-i", _FILE),
    "window": ("screencapture", "-x", "-t", "png", "-o", "-iW", _FILE),  # -o: without its shadow
    "screen": ("screencapture", "-x", "-t", "png", _FILE),
}
_BY_POINTER = (("maim", "-s", "-u", _FILE), ("import", "-silent", _FILE))
"""On X11: drag for a region, click for a window."""
_WAYLAND_SCREEN = (
    ("grim", _FILE),
    ("gnome-screenshot", "-f", _FILE),
    ("spectacle", "-b", "-n", "-f", "-o", _FILE),
)
_WAYLAND_REGION = (
    ("slurp", "grim", "-g", "-", _FILE),  # slurp writes the place on which grim is to look
    ("gnome-screenshot", "-a", "-f", _FILE),
    ("spectacle", "-b", "-n", "-r", "-o", _FILE),
)


def take_screenshot(kind: ShotKind) -> Image.Image:
    """The screen as it is now, in the screen's own pixels; nothing of it is left on the disk.

    For a region or a window it waits until a person has chosen. InputError where that was called off, where there is
    no screen, and where it may not be seen.
    """
    if sys.platform == "darwin":
        if not _may_see_screen():
            raise InputError(_REFUSED)
        return _taken_by(_MACOS[kind], kind)
    if os.environ.get("WAYLAND_DISPLAY"):
        if kind == "window":
            raise InputError("a window cannot be chosen under Wayland; take a region instead")
        return _taken_by(_installed(_WAYLAND_REGION if kind == "region" else _WAYLAND_SCREEN, kind), kind)
    display = os.environ.get("DISPLAY")
    if not display:
        raise InputError("there is no screen here (DISPLAY and WAYLAND_DISPLAY are not set); attach a picture file")
    if kind != "screen":
        return _taken_by(_installed(_BY_POINTER, kind), kind)
    try:
        return open_image(ImageGrab.grab(xdisplay=display))
    except OSError as error:
        raise InputError(f"the screen {display} cannot be seen ({_one_line(error)}); check DISPLAY") from error


def _may_see_screen() -> bool:
    """What macOS says of this terminal. The first time that it may not, macOS asks the person for it.

    Without the permission a picture shows the wallpaper and no window, so the picture cannot tell.
    """
    try:
        graphics = ctypes.CDLL(_CORE_GRAPHICS)
        preflight, request = graphics.CGPreflightScreenCaptureAccess, graphics.CGRequestScreenCaptureAccess
    except (OSError, AttributeError):
        return True  # not known: screencapture will say
    preflight.restype = request.restype = ctypes.c_bool
    return bool(preflight() or request())


def _installed(commands: tuple[tuple[str, ...], ...], kind: ShotKind) -> tuple[str, ...]:
    for command in commands:
        if all(shutil.which(program) for program in _programs(command)):
            return command
    wanted = ", ".join(" with ".join(_programs(command)) for command in commands)
    raise InputError(f"nothing here can take a picture of a {kind}; install one of {wanted}")


def _programs(command: tuple[str, ...]) -> tuple[str, ...]:
    return command[:2] if command[0] == "slurp" else command[:1]


def _taken_by(command: tuple[str, ...], kind: ShotKind) -> Image.Image:
    """The picture that `command` takes. InputError where it leaves none, with what it said."""
    limit_s = _WHOLE_SCREEN_S if kind == "screen" else None
    try:
        place = _chosen_place() if command[0] == "slurp" else b""
        command = command[1:] if command[0] == "slurp" else command
        with tempfile.TemporaryDirectory(prefix="gemma-mlx-") as folder:
            file = Path(folder, "screenshot.png")
            arguments = [str(file) if argument == _FILE else argument for argument in command]
            done = subprocess.run(arguments, input=place, capture_output=True, timeout=limit_s)
            if file.is_file() and file.stat().st_size:
                return open_image(file)
    except subprocess.TimeoutExpired as error:
        raise InputError(f"{_NOT_TAKEN} ({command[0]} hung for {limit_s} s); try again") from error
    except OSError as error:
        raise InputError(f"{_NOT_TAKEN} ({_one_line(error)}); make room or install {command[0]} again") from error
    said = _one_line(done.stderr.decode(errors="replace"))
    if command[0] == "screencapture" and ("could not create image" in said or (kind == "screen" and not said)):
        raise InputError(_REFUSED)
    if kind == "screen":
        said = said or f"{command[0]} ended with code {done.returncode}"
    raise InputError(_NOT_TAKEN if not said or "cancel" in said.lower() else f"{_NOT_TAKEN} ({said}); try again")


def _chosen_place() -> bytes:
    """What a person marked with the pointer under Wayland, as grim takes it."""
    place = subprocess.run(["slurp"], capture_output=True).stdout
    if not place.strip():
        raise InputError(_NOT_TAKEN)
    return place


def _one_line(said: object) -> str:
    return " ".join(str(said).split())[:200]
