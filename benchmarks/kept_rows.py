"""The reference's logits, on disk while other models are measured beside them: only one model is ever in memory.

A row is the whole vocabulary in float32, 1 MiB at 262,144 tokens, as the model gave it: nothing is rounded or cut off.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gemma_mlx.errors import GemmaError

_ADVICE = "ask fewer or shorter answers (-n), or name a roomier place: TMPDIR=FOLDER gemma-mlx bench quality ..."


class KeptRows:
    """Rows [P, V] in a temporary file, which is gone once it is closed, or this process ends, however it ends."""

    def __init__(self, vocab_size: int, most_rows: int) -> None:
        """GemmaError where `most_rows` rows would not fit the disk."""
        needed_bytes, free_bytes = 4 * vocab_size * most_rows, shutil.disk_usage(tempfile.gettempdir()).free
        if needed_bytes > free_bytes:
            raise GemmaError(
                f"the reference's logits need {needed_bytes / 1e9:.1f} GB in {tempfile.gettempdir()!r}; it has "
                f"{free_bytes / 1e9:.1f} GB free; {_ADVICE}"
            )
        self._vocab_size = vocab_size
        self._file = tempfile.TemporaryFile()  # noqa: SIM115

    def close(self) -> None:
        """The rows are gone afterwards."""
        self._file.close()

    def append(self, rows: NDArray[np.float32]) -> None:
        """Keeps `rows` [L, V] behind those kept before. GemmaError where the disk is full."""
        try:
            self._file.seek(0, os.SEEK_END)
            self._file.write(rows.astype(np.float32, copy=False).tobytes())
            self._file.flush()
        except OSError as error:
            raise GemmaError(f"cannot keep the reference's logits ({error.strerror}); {_ADVICE}") from None

    def rows(self, start: int, count: int) -> NDArray[Any]:
        """The rows `start : start + count`, [count, V]."""
        self._file.seek(4 * self._vocab_size * start)
        return np.frombuffer(self._file.read(4 * self._vocab_size * count), np.float32).reshape(count, -1)
