"""What `--resume` goes on from: the answers of a batch, each on the disk before it is shown.

One file per question, named by everything that decides an answer but the picture. In it one line per answer, found by
what is in the picture's file: one that was moved, or lies in two places, is asked about once.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from gemma_mlx.errors import GemmaError
from gemma_mlx.home import home

FOLDER = "captions"


class Journal:
    """Entered, the answers given so far, and the place for more; another process cannot enter it meanwhile."""

    def __init__(self, question: Mapping[str, Any]) -> None:
        """`question` is all that decides an answer but the file: prompt, model, settings, in JSON values."""
        named = hashlib.blake2b(json.dumps(question, sort_keys=True).encode(), digest_size=16).hexdigest()
        self.path = home() / FOLDER / f"{named}.jsonl"
        self._answers: dict[str, dict[str, Any]] = {}
        self._descriptor = -1

    def __enter__(self) -> Journal:
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)
            try:
                fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                self._read()
            except BaseException:
                os.close(self._descriptor)
                raise
        except BlockingIOError:
            raise GemmaError("another process is at work on the same with --resume; wait for its end") from None
        except OSError as error:
            raise self._failure(error) from error
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        os.close(self._descriptor)

    def find(self, digest: str) -> dict[str, Any] | None:
        """The answer about the file with this digest."""
        return self._answers.get(digest)

    def keep(self, digest: str, answer: Mapping[str, Any]) -> None:
        """Brings an answer to the disk. GemmaError where the disk does not let us."""
        line = json.dumps({"digest": digest, "answer": answer}).encode() + b"\n"
        try:
            end = os.fstat(self._descriptor).st_size
            try:
                if os.write(self._descriptor, line) != len(line):
                    raise OSError(28, "no space left on the disk")
                os.fsync(self._descriptor)
            except OSError:
                os.ftruncate(self._descriptor, end)
                raise
        except OSError as error:
            raise self._failure(error) from error
        self._answers[digest] = dict(answer)

    def _read(self) -> None:
        """The answers in the file. What a killed process left of a line is cut off."""
        written = self.path.read_bytes()
        whole = written[: written.rfind(b"\n") + 1]
        if len(whole) < len(written):
            os.ftruncate(self._descriptor, len(whole))
        for line in whole.splitlines():
            try:
                entry = json.loads(line)
                self._answers[entry["digest"]] = entry["answer"]
            except (ValueError, KeyError, TypeError):
                continue  # a damaged line is a picture asked about once more

    def _failure(self, error: OSError) -> GemmaError:
        return GemmaError(f"cannot keep answers in {self.path}: {error.strerror or error}; leave --resume out")


def file_digest(source: str | bytes) -> str:
    """Tells what is in a file from anything else. GemmaError where it cannot be read."""
    digest = hashlib.blake2b(digest_size=16)
    if isinstance(source, bytes):
        digest.update(source)
        return digest.hexdigest()
    try:
        with Path(source).open("rb") as file:
            while piece := file.read(1 << 20):
                digest.update(piece)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise GemmaError(f"cannot open {source}: {reason}; check the path") from error
    return digest.hexdigest()
