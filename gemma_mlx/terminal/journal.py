"""What `--resume` goes on from: the answers of a batch, each on the disk before it is shown.

One file per question, named by everything that decides an answer but the picture. In it one line per answer, found by
what is in the picture's file: one that was moved, or lies in two places, is asked about once.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from gemma_mlx.errors import GemmaError
from gemma_mlx.home import home
from gemma_mlx.kept_lines import KeptLines

if TYPE_CHECKING:
    from gemma_mlx.answer import Reply

FOLDER = "captions"


class Journal:
    """Entered, the answers given so far, and the place for more; another process cannot enter it meanwhile."""

    def __init__(self, question: Mapping[str, Any]) -> None:
        """`question` is all that decides an answer but the file: prompt, model, settings, in JSON values."""
        named = hashlib.blake2b(json.dumps(question, sort_keys=True).encode(), digest_size=16).hexdigest()
        self.path = home() / FOLDER / f"{named}.jsonl"
        self._answers: dict[str, Reply] = {}

    def __enter__(self) -> Journal:
        from gemma_mlx.answer import Reply

        try:
            self._lines = KeptLines(self.path)
        except BlockingIOError:
            raise GemmaError("another process is at work on the same with --resume; wait for its end") from None
        except OSError as error:
            raise self._failure(error) from error
        for entry in self._lines.found:
            with suppress(KeyError, TypeError):  # a damaged line is a picture asked about once more
                self._answers[entry["digest"]] = Reply(**entry["answer"])
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._lines.close()

    def find(self, digest: str) -> Reply | None:
        """The answer about the file with this digest."""
        return self._answers.get(digest)

    def keep(self, digest: str, answer: Reply) -> None:
        """Brings an answer to the disk. GemmaError where the disk does not let us."""
        try:
            self._lines.add({"digest": digest, "answer": vars(answer)})
        except OSError as error:
            raise self._failure(error) from error
        self._answers[digest] = answer

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
