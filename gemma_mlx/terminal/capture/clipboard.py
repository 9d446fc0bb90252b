"""The clipboard: a picture out of it, a text into it, through the programs that systems have for that.

The programs are run here, not by Pillow, which waits for them without end, asks for PNG alone, and opens what it gets
in any format that it knows. They get a text on their stdin, where no other user of the machine sees it.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import unquote, urlsplit

from PIL import Image

from gemma_mlx.errors import InputError
from gemma_mlx.inputs.image import open_image
from gemma_mlx.terminal.input_files import media_kind

_LIMIT_S = 10
"""What was copied is asked of the program that it was copied in, which may hang."""
_PICTURE_TYPES = ("image/png", "image/jpeg", "image/webp", "image/tiff", "image/bmp", "image/gif", "image/avif")
_FILES_TYPE = "text/uri-list"
_NO_PICTURE = "the clipboard holds no picture; copy one first"
_FILE_ON_MACOS = "POSIX path of (the clipboard as «class furl»)"
_PNG_ON_MACOS = "the clipboard as «class PNGf»"
_XCLIP, _WL_PASTE = ("xclip", "-selection", "clipboard", "-o", "-t"), ("wl-paste", "--no-newline", "--type")


def clipboard_picture() -> Image.Image:
    """The picture in the clipboard, or in the first picture file that was copied. InputError where there is none."""
    if sys.platform == "darwin":
        return _from_macos()
    wayland = _on_wayland()
    read = _WL_PASTE if wayland else _XCLIP
    if not shutil.which(read[0]):
        raise InputError(f"the clipboard cannot be read without {read[0]}; install {_package(read[0])}")
    types = _output(["wl-paste", "--list-types"] if wayland else [*_XCLIP, "TARGETS"]).decode(errors="replace").split()
    kind = next((kind for kind in _PICTURE_TYPES if kind in types), None)
    if kind:
        return open_image(_output([*read, kind]))
    if _FILES_TYPE in types:
        for line in _output([*read, _FILES_TYPE]).decode(errors="replace").splitlines():
            url = urlsplit(line.strip())
            path = Path(unquote(url.path, errors="surrogateescape"))
            if url.scheme == "file" and media_kind(path) == "image":
                return open_image(path)
    raise InputError(_NO_PICTURE)


def copy_text(text: str) -> None:
    """Puts `text` into the clipboard. InputError where the system has no way or refuses."""
    command = _writer()
    # xclip, xsel and wl-copy leave a process behind that holds the text for others. It is kept out of reach of Ctrl-C,
    # and what is said on stderr goes to a file, as a pipe would stay open as long as that process lives.
    with tempfile.TemporaryFile() as said:
        try:
            code = subprocess.run(
                command,
                input=text.encode(errors="replace"),
                stdout=subprocess.DEVNULL,
                stderr=said,
                timeout=_LIMIT_S,
                env={**os.environ, "LC_ALL": "en_US.UTF-8"},  # pbcopy reads what it gets as the locale says
                start_new_session=True,
            ).returncode
        except subprocess.TimeoutExpired as error:
            raise InputError(f"nothing was copied ({command[0]} hung for {_LIMIT_S} s); try again") from error
        except OSError as error:
            raise InputError(f"nothing was copied ({command[0]}: {error.strerror}); install it again") from error
        if code:
            said.seek(0)
            reason = _one_line(said.read()) or f"{command[0]} ended with code {code}"
            raise InputError(f"nothing was copied ({reason}); select the text in the terminal")


def _writer() -> list[str]:
    if sys.platform == "darwin":
        return ["pbcopy"]
    if _on_wayland():
        commands = [["wl-copy", "--type", "text/plain;charset=utf-8"]]
    else:
        commands = [["xclip", "-selection", "clipboard", "-i"], ["xsel", "--clipboard", "--input"]]
    for command in commands:
        if shutil.which(command[0]):
            return command
    raise InputError(f"nothing was copied: {commands[0][0]} is missing; install {_package(commands[0][0])}")


def _package(program: str) -> str:
    return "wl-clipboard" if program.startswith("wl-") else program


def _on_wayland() -> bool:
    """Whether it is Wayland and not X11. InputError where it is neither."""
    if os.environ.get("WAYLAND_DISPLAY"):
        return True
    if os.environ.get("DISPLAY"):
        return False
    raise InputError("there is no clipboard here (DISPLAY and WAYLAND_DISPLAY are not set); use files")


def _from_macos() -> Image.Image:
    # A file copied in Finder also offers its icon as a picture, so the file is asked for first.
    path = Path(_asked_of_macos(_FILE_ON_MACOS).decode(errors="surrogateescape").removesuffix("\n"))
    if path.is_absolute() and media_kind(path) == "image":
        return open_image(path)
    shown = re.search(rb"PNGf([0-9A-Fa-f]+)", _asked_of_macos(_PNG_ON_MACOS))  # «data PNGf89504E47...»
    if shown is None:
        raise InputError(_NO_PICTURE)
    return open_image(bytes.fromhex(shown[1].decode()))


def _asked_of_macos(script: str) -> bytes:
    """b"" where the clipboard cannot be had in this form."""
    return _output(["osascript", "-e", script])


def _output(command: Sequence[str]) -> bytes:
    """What `command` writes to stdout, b"" where it says that there is nothing. InputError where it cannot run."""
    try:
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, timeout=_LIMIT_S)
    except subprocess.TimeoutExpired as error:
        raise InputError(f"the clipboard gave nothing for {_LIMIT_S} s; copy the picture again") from error
    except OSError as error:
        raise InputError(f"the clipboard cannot be read ({command[0]}: {error.strerror}); install it again") from error
    reason = _one_line(done.stderr)
    if done.returncode and re.search("open display|connect", reason):
        raise InputError(f"the clipboard cannot be reached ({reason}); check DISPLAY and WAYLAND_DISPLAY")
    return b"" if done.returncode else done.stdout


def _one_line(said: bytes) -> str:
    return " ".join(said.decode(errors="replace").split())[:200]
