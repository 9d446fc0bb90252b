"""A screen of X11 that nobody sees, and pictures drawn on it."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import Image

WIDTH_PX, HEIGHT_PX = 640, 400


class VirtualScreen:
    """`display` is what DISPLAY says, `frame` the file with the screen's pixels: an XWD header, then BGRX."""

    def __init__(self, display: str, frame: Path, size_px: tuple[int, int]) -> None:
        self.display = display
        self._frame, self._size_px = frame, size_px

    def draw(self, picture: Image.Image) -> None:
        """Sets every pixel of the screen, behind the server's back."""
        rgb = np.asarray(picture.resize(self._size_px).convert("RGB"))
        header = np.frombuffer(self._frame.read_bytes()[:100], dtype=">u4")
        with self._frame.open("r+b") as file:
            file.seek(int(header[0]) + 12 * int(header[19]))  # header_size, ncolors
            file.write(np.dstack([rgb[..., ::-1], np.zeros_like(rgb[..., :1])]).tobytes())


@contextmanager
def virtual_screen(folder: Path, size_px: tuple[int, int] = (WIDTH_PX, HEIGHT_PX)) -> Iterator[VirtualScreen]:
    """Xvfb on the first free display, for as long as the `with`."""
    width_px, height_px = size_px
    reading, writing = os.pipe()
    flags = ["-screen", "0", f"{width_px}x{height_px}x24", "-nolisten", "tcp", "-noreset", "-fbdir", str(folder)]
    command = ["Xvfb", "-displayfd", str(writing), *flags]
    server = subprocess.Popen(command, pass_fds=[writing], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    os.close(writing)
    try:
        with os.fdopen(reading, "rb") as numbers:
            yield VirtualScreen(f":{_number(numbers)}", folder / "Xvfb_screen0", size_px)
    finally:
        server.terminate()
        server.wait()


def _number(numbers: BinaryIO) -> int:
    """The display's number, which the server writes as soon as it takes connections."""
    line = numbers.readline().strip()
    assert line, "Xvfb ended at once"
    return int(line)
