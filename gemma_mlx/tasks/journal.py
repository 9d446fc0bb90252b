"""What was heard so far of a recording, kept so that work that was killed goes on and computes nothing twice.

One file of JSON Lines for each recording and way of hearing it, in the program's own folder and readable by its owner
alone. A window is found again by its place; the cuts are made anew, which takes a moment and gives the same ones.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from gemma_mlx.errors import GemmaError
from gemma_mlx.kept_lines import KeptLines
from gemma_mlx.tasks.listening import Heard
from gemma_mlx.tasks.windows import Window

FORM = 2
"""Goes up when the same settings would be heard or cut otherwise."""
_END_BYTES = 1 << 20
_KEPT_S = 30 * 86_400


def recording_identity(path: Path) -> dict[str, Any]:
    """Which recording is at `path`: its size, when it was changed, and a digest of its first and last mebibyte."""
    with path.open("rb") as file:
        about = os.fstat(file.fileno())
        digest = hashlib.blake2b(file.read(_END_BYTES), digest_size=16)
        file.seek(max(0, about.st_size - _END_BYTES))
        digest.update(file.read(_END_BYTES))
    return {"size_bytes": about.st_size, "changed_ns": about.st_mtime_ns, "digest": digest.hexdigest()}


class Journal:
    """What was heard of one recording. Use in a `with`; the file stays until `remove`."""

    def __init__(self, folder: Path, identity: Mapping[str, Any], *, restart: bool = False) -> None:
        """`identity` is all that what is heard depends on. With `restart`, what there was is thrown away.

        GemmaError where the folder cannot be written.
        """
        described = json.dumps({"form": FORM, **identity}, sort_keys=True)
        self.path = folder / f"{hashlib.blake2b(described.encode(), digest_size=16).hexdigest()}.jsonl"
        self._folder = folder
        try:
            self._lines = KeptLines(self.path, restart=restart)
        except BlockingIOError:
            raise GemmaError("another process transcribes this recording the same way; wait for it") from None
        except OSError as error:
            raise self._failure(error) from error
        _forget_old(folder)
        self._done: dict[str, Heard] = {}
        for found in self._lines.found:
            with suppress(KeyError, TypeError, ValueError):  # a damaged line is a window heard once more
                place = found.pop("place")
                self._done[place] = Heard(**{**found, **_tuples(found)})

    def __enter__(self) -> Journal:
        return self

    def __exit__(self, *exception: object) -> None:
        self._lines.close()

    @property
    def windows(self) -> int:
        """How many were heard before it was opened."""
        return len(self._done)

    def of(self, window: Window) -> Heard | None:
        """What was heard in it, if it was."""
        return self._done.get(_place(window))

    def keep(self, window: Window, heard: Heard) -> None:
        """From now on also a kill does not lose it. GemmaError where the disk does not let us."""
        try:
            self._lines.add({"place": _place(window), **vars(heard)})
        except OSError as error:
            raise self._failure(error) from error

    def remove(self) -> None:
        """The work is done."""
        with suppress(OSError):
            self.path.unlink()

    def _failure(self, error: OSError) -> GemmaError:
        return GemmaError(
            f"cannot keep what was heard in {self._folder} ({error.strerror}); make room there, or set GEMMA_MLX_HOME"
        )


def _tuples(found: Mapping[str, Any]) -> dict[str, Any]:
    """JSON knows lists only."""
    return {
        "doubts": tuple(found["doubts"]),
        "tokens": tuple(found["tokens"]),
        "logprobs": tuple(tuple((index, value) for index, value in best) for best in found["logprobs"]),
    }


def _place(window: Window) -> str:
    return f"{window.start_s:.2f}-{window.end_s:.2f}"


def _forget_old(folder: Path) -> None:
    """Nobody comes back to what was left a month ago."""
    for path in folder.glob("*.jsonl"):
        with suppress(OSError):
            if time.time() - path.stat().st_mtime > _KEPT_S:
                path.unlink()
