"""Captions in files beside the pictures: photo.txt, or photo.xmp, which Lightroom, digiKam and exiftool read.

What somebody else wrote is not lost: a .txt that holds something else, and an .xmp of another program, are refused by
name. With `overwrite`, the .txt is replaced, and of the .xmp the description alone.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from gemma_mlx.errors import GemmaError, UsageError
from gemma_mlx.replace_file import replacing
from gemma_mlx.terminal import xmp
from gemma_mlx.terminal.input_files import place_of_its_own
from gemma_mlx.terminal.stdin import STDIN

SidecarFormat = Literal["txt-sidecar", "xmp"]


class Sidecars:
    """Where captions of `files` go. UsageError where one has no place."""

    def __init__(self, files: Sequence[str], format: SidecarFormat, overwrite: bool) -> None:
        self._xmp = format == "xmp"
        self._overwrite = overwrite
        self._paths: dict[str, Path] = {}
        writers: dict[str, str] = {}
        for file in files:
            if file == STDIN:
                raise UsageError(f"--format {format} writes beside the picture, and stdin has no place; name a file")
            if not Path(file).name:
                raise UsageError(f"{file!r} names no file; name a picture")
            suffix = ".xmp" if self._xmp else ".txt"
            own = Path(file).with_suffix(suffix)
            if own == Path(file):
                raise UsageError(f"the caption of {file} would be written over it; give the picture another name")
            path = place_of_its_own(file, (own, Path(f"{file}{suffix}")), writers)
            if path is None:
                raise UsageError(f"others have the place of {file}, which is {own}; caption it by itself")
            self._paths[file] = path

    def path(self, file: str) -> Path:
        """The sidecar of the picture called `file`, a.xmp for a.jpg; a.mov.xmp if a.jpg came before a.mov."""
        return self._paths[file]

    def check(self, file: str) -> None:
        """GemmaError, before anything is computed, where the sidecar's place is taken; see `write` for a .txt."""
        path = self.path(file)
        if os.path.lexists(path) and not self._overwrite and not (self._xmp and xmp.is_ours(_bytes(path))):
            raise _taken(path)

    def write(self, file: str, text: str) -> Path:
        """Writes the caption of `file`; returns where. A .txt that says the same already stays as it is.

        GemmaError where the place is taken, or cannot be written.
        """
        path = self.path(file)
        there = _bytes(path) if os.path.lexists(path) else None
        if self._xmp:
            content = (
                xmp.packet(text) if there is None or xmp.is_ours(there) else xmp.with_description(there, text, path)
            )
        else:
            content = text.encode() + b"\n"
        if there == content:
            return path
        if there is not None and not self._overwrite and not (self._xmp and xmp.is_ours(there)):
            raise _taken(path)
        try:
            with replacing(path) as stream:
                os.fchmod(stream.fileno(), Path(file).stat().st_mode & 0o666)  # who may see the picture may read of it
                stream.write(content)
        except OSError as error:
            raise GemmaError(
                f"cannot write {path}: {error.strerror or error}; check the folder and its space"
            ) from error
        return path


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise GemmaError(f"cannot read {path}: {error.strerror or error}; move it away") from error


def _taken(path: Path) -> GemmaError:
    return GemmaError(f"{path} is there already, and may hold what somebody wrote; move it, or add --overwrite")
