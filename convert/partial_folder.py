"""A folder that appears whole or not at all, and whose unfinished work survives a kill.

NAME.partial/              locked by the process that works on it, as long as it lives
    journal.jsonl          what is done
    folder/                becomes NAME at the end, by one rename
"""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from convert.disk_space import held_bytes, require_space
from convert.journal import Identity, Journal
from gemma_mlx.errors import CheckpointError, GemmaError, UsageError
from gemma_mlx.replace_file import bring_path_to_disk

JOURNAL_FILE, INNER_FOLDER = "journal.jsonl", "folder"
LONGEST_SHOWN = 48
"""A value up to this length is shown in a message: a commit or a recipe's name, no digest."""


@dataclass(frozen=True)
class PartialFolder:
    """The place to work in, and what is done there."""

    folder: Path
    journal: Journal


def partial_path(destination: Path) -> Path:
    """Where the unfinished work on `destination` lies."""
    return destination.with_name(destination.name + ".partial")


def refuse_existing(destination: Path) -> None:
    """Raises UsageError if there is anything at `destination`, or it lies in a folder that is not finished."""
    if os.path.lexists(destination):
        raise UsageError(f"{destination} exists and is not overwritten; name a new folder or remove it first")
    for parent in destination.parents:
        if parent.name and partial_path(parent).is_dir():
            raise UsageError(f"{parent} is not finished: {partial_path(parent)} is still there; finish it first")


def refuse_other_recipe(destination: Path, recipe: str, *, restart: bool = False) -> None:
    """Raises UsageError as `partial_folder` will where an unfinished conversion to `destination` is by another one."""
    partial = partial_path(destination)
    if (begun := Journal(partial / JOURNAL_FILE).identity) is not None:
        _require_same(partial, begun, {**begun, "recipe": recipe}, restart)


def working_folder(destination: Path) -> Path:
    """Where in it the files grow."""
    return partial_path(destination) / INNER_FOLDER


@contextmanager
def partial_folder(
    destination: Path, identity: Identity, needed_bytes: int, *, restart: bool = False
) -> Iterator[PartialFolder]:
    """A folder to write into, which is `destination` when the block ends well.

    It is the one that an earlier run with the same `identity` left behind, if there is one. When the block does not
    end well, it stays for the next run; only a GemmaError, which the same command would meet again, removes it, and
    the parents that were made for it.

    Raises UsageError for an earlier run with another `identity`, unless `restart` throws that away; CheckpointError
    where another process works on it, where fewer bytes are free than are missing of `needed_bytes`, and for an
    OSError in the block.
    """
    partial = partial_path(destination)
    with _made_and_locked(partial):
        refuse_existing(destination)
        work = PartialFolder(working_folder(destination), Journal(partial / JOURNAL_FILE))
        _require_same(partial, work.journal.identity, identity, restart)
        if work.journal.identity != identity or not work.folder.is_dir():
            _empty(partial)
        require_space({destination: needed_bytes - held_bytes(work.folder)})
        try:
            if work.journal.identity != identity or not work.folder.is_dir():
                work.journal.begin(identity)
                work.folder.mkdir()
            yield work
            for file in (*work.folder.iterdir(), work.folder):
                bring_path_to_disk(file)
            _rename_to_new(work.folder, destination)
            bring_path_to_disk(destination.parent)
            _empty(partial)
        except GemmaError:
            _empty(partial)
            raise
        except OSError as error:
            raise CheckpointError(
                f"the conversion to {destination} stopped: {error.strerror or error}; {partial.name} keeps what is "
                "done, and the same command goes on from there"
            ) from None


def _rename_to_new(folder: Path, destination: Path) -> None:
    """Raises OSError where something came to `destination` meanwhile."""
    if os.path.lexists(destination):
        raise OSError(f"{destination} has appeared meanwhile; move it away")
    folder.rename(destination)


@contextmanager
def _made_and_locked(partial: Path) -> Iterator[None]:
    """The folder `partial`, ours alone. Afterwards it is gone if it is empty, and so are parents made for it.

    The lock is the system's: it goes with the process, however that ends.
    """
    new_parents = [folder for folder in partial.parents if not os.path.lexists(folder)]
    descriptor = -1
    try:
        try:
            partial.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(partial, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
        except OSError as error:
            raise CheckpointError(f"cannot write {partial}: {error.strerror}; name another folder") from None
        if not _lock(descriptor, partial):
            new_parents = []
            raise CheckpointError(f"another conversion is writing {partial}; wait for it, or name another folder")
        new_parents.insert(0, partial)
        yield
    finally:
        for folder in new_parents:
            with suppress(OSError):
                folder.rmdir()  # refuses one that is not empty
        if descriptor >= 0:
            os.close(descriptor)


def _lock(descriptor: int, folder: Path) -> bool:
    """Whether the opened `folder` is ours now. One that its last owner renamed or removed meanwhile is nobody's."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return os.path.samestat(os.fstat(descriptor), folder.lstat())
    except (BlockingIOError, FileNotFoundError):
        return False


def _require_same(partial: Path, begun: Identity | None, identity: Identity, restart: bool) -> None:
    """Raises UsageError if `partial` holds another conversion's work, or something that is none."""
    if begun is None:
        if not (partial / JOURNAL_FILE).is_file() and any(partial.iterdir()):
            raise UsageError(f"{partial} exists and is no unfinished conversion; remove it or name another folder")
    elif begun != identity and not restart:
        other = next(key for key in (*identity, *begun) if begun.get(key) != identity.get(key))
        value = begun.get(other, "")
        shown = f" ({value})" if 0 < len(value) <= LONGEST_SHOWN else ""
        raise UsageError(
            f"{partial} holds an unfinished conversion of another {other}{shown}; "
            "go on with the command that began it, or throw it away with --restart"
        )


def _empty(folder: Path) -> None:
    """The journal goes last: without it, what a kill left here would be nobody's."""
    for path in sorted(folder.iterdir(), key=lambda path: path.name == JOURNAL_FILE):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()
