"""From the names on a command line to the recordings to read, and where what is said in each goes."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from gemma_mlx.errors import UsageError
from gemma_mlx.terminal.input_files import SOUND_SUFFIXES, VIDEO_SUFFIXES, each_once, place_of_its_own
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
    """All that `names` stand for, each once, in their order; those of a folder by name, hidden ones left out.

    Into `folder`, what lies in a folder that was named goes as it lies there. UsageError for a folder without
    recordings, for one that has no place in `folder`, and for subtitles or tables of several to stdout.
    """
    found: dict[str, Path] = {}
    for name in names:
        path = Path(name)
        if name != STDIN and os.path.isdir(name):  # noqa: PTH112  # False also for a name that is too long
            inside = sorted(_recordings_in(path))
            if not inside:
                raise UsageError(f"the folder {name!r} holds no recording ({' '.join(sorted(SUFFIXES))}); name another")
            found |= {str(one): one.relative_to(path) for one in inside if str(one) not in found}
        else:
            found.setdefault(name, Path("stdin" if name == STDIN else path.name))
    named = each_once(list(found))
    if folder is not None:
        return _with_targets(folder, {name: found[name] for name in named}, suffix)
    if len(named) > 1 and suffix != "txt":
        raise UsageError(f"--format {suffix} of {len(named)} recordings needs a file for each; add --output-dir DIR")
    return [Recording(name, None) for name in named]


def _recordings_in(folder: Path) -> Iterator[Path]:
    for place, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        for name in files:
            if Path(name).suffix.lower() in SUFFIXES and not name.startswith("."):
                yield Path(place) / name


def _with_targets(folder: Path, places: Mapping[str, Path], suffix: str) -> list[Recording]:
    """Each with the file to write in `folder`: a.txt for a.wav; a.mp4.txt if a.wav came before a.mp4."""
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"--output-dir {str(folder)!r} is a file; name a folder")
    writers: dict[str, str] = {}
    recordings = []
    for name, place in places.items():
        own = folder / place.with_name(f"{place.stem}.{suffix}")
        target = place_of_its_own(name, (own, folder / place.with_name(f"{place.name}.{suffix}")), writers)
        if target is None:
            raise UsageError(f"others have the place of {name}, which is {own}; transcribe it by itself")
        recordings.append(Recording(name, target))
        if name != STDIN and Path(name).resolve() == target.resolve():
            raise UsageError(f"{name} would be written over; name another --output-dir")
    return recordings
