"""What a person names on the command line -> files: a folder stands for what lies in it, a pattern for what fits it."""

from __future__ import annotations

import glob
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from gemma_mlx.errors import UsageError
from gemma_mlx.terminal.stdin import STDIN

if TYPE_CHECKING:
    from gemma_mlx.inputs.media import MediaKind

RAW_SUFFIXES = frozenset(
    (".dng", ".cr2", ".cr3", ".crw", ".nef", ".nrw", ".arw", ".sr2", ".raf", ".orf", ".rw2", ".rwl", ".pef", ".srw",
     ".x3f", ".mrw")
)  # fmt: skip
PICTURE_SUFFIXES = RAW_SUFFIXES | frozenset(
    (".png", ".jpg", ".jpeg", ".jpe", ".gif", ".webp", ".tif", ".tiff", ".bmp", ".avif", ".heic", ".heif", ".jp2",
     ".j2k", ".ppm", ".pgm", ".pbm", ".ico", ".icns")
)  # fmt: skip
VIDEO_SUFFIXES = frozenset(
    (".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".mpg", ".mpeg", ".flv", ".3gp", ".mts", ".m2ts", ".ogv")
)  # fmt: skip
"""Not .ts, which most often is TypeScript."""
SOUND_SUFFIXES = frozenset(
    (".wav", ".wave", ".flac", ".ogg", ".oga", ".opus", ".mp3", ".m4a", ".m4b", ".aac", ".aif", ".aiff", ".caf", ".wma",
     ".amr", ".ac3", ".mka")
)  # fmt: skip
PICTURE_AND_VIDEO_SUFFIXES = PICTURE_SUFFIXES | VIDEO_SUFFIXES


def media_kind(path: Path) -> MediaKind | None:
    """What the ending of `path` says that it holds; None where that is nothing the model sees or hears."""
    suffix = path.suffix.lower()
    if suffix in PICTURE_SUFFIXES:
        return "image"
    if suffix in VIDEO_SUFFIXES:
        return "video"
    return "audio" if suffix in SOUND_SUFFIXES else None


def named_files(names: Sequence[str], suffixes: frozenset[str]) -> list[str]:
    """The files that `names` stand for, each once, in their order. UsageError for a folder or pattern of none.

    A folder gives the files in it that end in one of `suffixes`, by name; not those in folders within, for which a
    pattern has `**`. A name that is no file and has `*`, `?` or `[` in it is a pattern. Hidden files are passed over.
    """
    files: list[str] = []
    for name in names:
        if os.path.isdir(name):  # noqa: PTH112  # False also for a name that is too long
            found = sorted(
                str(path)
                for path in Path(name).iterdir()
                if path.suffix.lower() in suffixes and not path.name.startswith(".") and path.is_file()
            )
            if not found:
                raise UsageError(f"the folder {name} holds no picture or video; name the files, or a pattern in quotes")
        elif glob.has_magic(name) and not os.path.lexists(name):
            found = sorted(path for path in glob.glob(name, recursive=True) if Path(path).is_file())  # noqa: PTH207
            if not found:
                raise UsageError(f"no file fits {name}; check the pattern")
        else:
            found = [name]
        files += found
    return each_once(files)


def each_once(files: Sequence[str]) -> list[str]:
    """`files` without those that were named before, but for `-`: who names stdin twice is to be told."""
    found: dict[str, str] = {}
    for number, file in enumerate(files):
        found.setdefault(str(number) if file == STDIN else os.path.abspath(file), file)  # noqa: PTH100  # of any text
    return list(found.values())


def place_of_its_own(file: str, places: Sequence[Path], writers: dict[str, str]) -> Path | None:
    """The first of `places` that no other file is written to; None if there is none.

    `writers` says which file is written where, and will say it of this one. macOS takes a.TXT and a.txt for one place.
    """
    for place in places:
        if writers.setdefault(str(place).casefold(), file) == file:
            return place
    return None
