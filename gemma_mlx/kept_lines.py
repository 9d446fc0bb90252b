"""Objects that are brought to the disk one by one, a line of JSON each, so that work that was killed can go on."""

from __future__ import annotations

import errno
import fcntl
import json
import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from gemma_mlx.replace_file import bring_to_disk, is_at


class KeptLines:
    """The lines of one file, and the place for more. Until `close`, or its end, one process has it for itself."""

    def __init__(self, path: Path, *, restart: bool = False) -> None:
        """With `restart`, what there was is thrown away. The folder is made, and both are for their owner alone.

        BlockingIOError where another process has the file, OSError where the disk does not let us.
        """
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._descriptor = _open_alone(path)
        try:
            if restart:
                os.ftruncate(self._descriptor, 0)
            self.found, self.passed_over = parsed_lines(self._read(path))
            """What the lines hold, and how many are no object of JSON."""
        except BaseException:
            self.close()
            raise

    def add(self, value: Mapping[str, Any]) -> None:
        """Brings one more to the disk. OSError where the disk does not let us: the file is as it was, then."""
        line = json.dumps(value).encode() + b"\n"
        end = os.fstat(self._descriptor).st_size
        try:
            if os.write(self._descriptor, line) != len(line):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            bring_to_disk(self._descriptor)
        except BaseException:
            with suppress(OSError):
                os.ftruncate(self._descriptor, end)
            raise

    def close(self) -> None:
        os.close(self._descriptor)

    def _read(self, path: Path) -> bytes:
        """What is there already. What a killed process left of a line is cut off."""
        written = path.read_bytes()
        whole = written[: written.rfind(b"\n") + 1]
        if len(whole) < len(written):
            os.ftruncate(self._descriptor, len(whole))
        return whole


def parsed_lines(whole: bytes) -> tuple[list[dict[str, Any]], int]:
    """The objects in lines of JSON, and how many lines hold something else."""
    lines, values = whole.split(b"\n"), []
    for line in lines:
        with suppress(ValueError, RecursionError):
            values.append(json.loads(line))
    objects = [value for value in values if isinstance(value, dict)]
    return objects, len([line for line in lines if line]) - len(objects)


def _open_alone(path: Path) -> int:
    """The file at `path`, locked. The lock goes with the process that holds it."""
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BaseException:
            os.close(descriptor)
            raise
        if is_at(descriptor, path):
            return descriptor
        os.close(descriptor)  # whoever had it was done, and took it away meanwhile
