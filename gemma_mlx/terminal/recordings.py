"""From the names on a command line to the recordings to read, and where what is said in each goes."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from gemma_mlx.errors import UsageError
from gemma_mlx.terminal.input_files import SOUND_SUFFIXES, VIDEO_SUFFIXES
from gemma_mlx.terminal.stdin import STDIN

SUFFIXES = SOUND_SUFFIXES | VIDEO_SUFFIXES | {".ts"}
"""What is taken of a folder; a file named by itself may have any name."""


@dataclass(frozen=True)
class Recording:
    """One to read. `name` is how a person knows it, `target` the file to write, None for stdout."""

    name: str
    target: Path | None

    @property
    def path(self) -> Path | None:
        """None for stdin."""
        return None if self.name == STDIN else Path(self.name)


def find_recordings(names: Sequence[str], folder: Path | None, suffix: str) -> list[Recording]:
    """All that `names` stand for, in their order, those of a folder by name; hidden ones of a folder are left out.

    Into `folder`, what lies in a folder that was named goes as it lies there. UsageError for a folder without
    recordings, for two that would be written to the same file, and for subtitles or tables of several to stdout.
    """
    found: list[Recording] = []
    for name in names:
        path = Path(name)
        if name != STDIN and os.path.isdir(name):  # noqa: PTH112  # False also for a name that is too long
            inside = sorted(_recordings_in(path))
            if not inside:
                raise UsageError(f"the folder {name!r} holds no recording ({' '.join(sorted(SUFFIXES))}); name another")
            found += [Recording(str(one), _target(folder, one.relative_to(path), suffix)) for one in inside]
        else:
            short = Path("stdin" if name == STDIN else path.name)
            found.append(Recording(name, _target(folder, short, suffix)))
    if folder is not None:
        _check_targets(folder, found)
    elif len(found) > 1 and suffix != "txt":
        raise UsageError(f"--format {suffix} of {len(found)} recordings needs a file for each; add --output-dir DIR")
    return found


def _recordings_in(folder: Path) -> Iterator[Path]:
    for place, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        for name in files:
            if Path(name).suffix.lower() in SUFFIXES and not name.startswith("."):
                yield Path(place) / name


def _target(folder: Path | None, relative: Path, suffix: str) -> Path | None:
    return None if folder is None else folder / relative.with_name(f"{relative.stem}.{suffix}")


def _check_targets(folder: Path, recordings: Sequence[Recording]) -> None:
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"--output-dir {str(folder)!r} is a file; name a folder")
    writers: dict[str, str] = {}
    for recording in recordings:
        target = str(recording.target).casefold()  # macOS takes a.TXT and a.txt for one file
        if other := writers.get(target):
            raise UsageError(f"{other} and {recording.name} would both be written to {recording.target}; name one")
        writers[target] = recording.name
        if recording.path and recording.target and recording.path.resolve() == recording.target.resolve():
            raise UsageError(f"{recording.name} would be written over; name another --output-dir")
