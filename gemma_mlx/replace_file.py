"""A file is replaced whole or not at all: written beside, brought to the disk, and renamed there too."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO


@contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """A stream to write; at its end, the file at `path` holds that, readable by its owner alone.

    Whatever happens before, also a kill or a power cut, the file at `path` is as it was. What is written lies in a
    hidden file beside it, which a killed writer leaves behind and the next one takes over. The bytes are on the disk
    before the name is, as far as the system and the disk keep their word. OSError where the disk does not let us, or
    where another process is writing it; the old file is there then.
    """
    beside = path.with_name(f".{path.name}.gemma-mlx-new")
    with os.fdopen(_open_alone(beside), "wb") as stream:
        try:
            yield stream
            stream.flush()
            bring_to_disk(stream.fileno())
            beside.replace(path)
        except BaseException:
            with suppress(OSError):
                beside.unlink()
            raise
    with suppress(OSError):  # the file is whole either way; a system that cannot do this brings the name there later
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def bring_to_disk(descriptor: int) -> None:
    """Waits until the bytes are on the disk. macOS's `fsync` leaves them in the disk's own memory."""
    full_sync: int | None = getattr(fcntl, "F_FULLFSYNC", None)
    if full_sync is not None:
        with suppress(OSError):  # a network's file system does not know it
            fcntl.fcntl(descriptor, full_sync)
            return
    os.fsync(descriptor)


def bring_path_to_disk(path: Path) -> None:
    """The same for a file that is not open, or for the names in a folder."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        bring_to_disk(descriptor)
    finally:
        os.close(descriptor)


def _open_alone(beside: Path) -> int:
    """Opens `beside` empty and locked. The lock goes with the process that holds it."""
    while True:
        descriptor = os.open(beside, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
        try:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise OSError(f"another process is writing {beside.name}") from None
            if is_at(descriptor, beside):
                os.fchmod(descriptor, 0o600)
                os.ftruncate(descriptor, 0)
                return descriptor
            os.close(descriptor)  # whoever had the lock has renamed it: it is the live file now
        except BaseException:
            os.close(descriptor)
            raise


def is_at(descriptor: int, path: Path) -> bool:
    """Whether the open file is the one that `path` names."""
    opened = os.fstat(descriptor)
    try:
        found = path.lstat()
    except FileNotFoundError:
        return False
    return (opened.st_dev, opened.st_ino) == (found.st_dev, found.st_ino)
