from __future__ import annotations

import errno
import io
import shutil
import tempfile
from collections import namedtuple
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from benchmarks.kept_rows import KeptRows
from gemma_mlx.errors import GemmaError


def test_rows_come_back_bit_for_bit_and_leave_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    rows = np.random.default_rng(0).normal(size=(7, 5)).astype(np.float32)
    with closing(KeptRows(5, 7)) as kept:
        kept.append(rows[:3])
        kept.append(rows[3:])
        assert np.array_equal(kept.rows(2, 4), rows[2:6])
        kept.append(rows[:1])
        assert np.array_equal(kept.rows(7, 1), rows[:1])
    assert not list(tmp_path.iterdir())


def test_a_disk_without_room_is_told_before_anything_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    usage = namedtuple("usage", "total used free")  # what shutil returns
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(0, 0, 4 * 10 * 3 - 1))
    with pytest.raises(GemmaError, match=r"TMPDIR=FOLDER"):
        KeptRows(10, 3)
    KeptRows(10, 2).close()


class FullDisk(io.BytesIO):
    def write(self, data: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")


def test_a_disk_that_fills_up_is_one_line() -> None:
    with closing(KeptRows(4, 1)) as kept:
        kept._file.close()
        kept._file = FullDisk()  # type: ignore[assignment]
        with pytest.raises(GemmaError, match=r"cannot keep the reference's logits \(No space left on device\)"):
            kept.append(np.zeros((1, 4), np.float32))
