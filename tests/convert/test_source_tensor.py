from __future__ import annotations

import errno
import os
from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest

from convert import source_tensor
from convert.source_tensor import StoredTensor
from gemma_mlx.checkpoint import read_header
from gemma_mlx.errors import CheckpointError


def _stored(folder: Path, rows: mx.array) -> StoredTensor:
    mx.save_safetensors(str(folder / "a.safetensors"), {"before": mx.zeros(3), "rows": rows})
    return next(StoredTensor(info) for info in read_header(folder / "a.safetensors") if info.name == "rows")


def test_what_was_read_leaves_the_page_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = mx.random.normal((64, 128), key=mx.random.key(1)).astype(mx.bfloat16)  # 16 slices of 1 KB
    tensor, given_back = _stored(tmp_path, rows), []

    def noted(descriptor: int, start: int, length: int, advice: int) -> None:
        if advice == os.POSIX_FADV_DONTNEED:
            given_back.append((start, length))

    monkeypatch.setattr(os, "posix_fadvise", noted, raising=False)
    monkeypatch.setattr(os, "POSIX_FADV_DONTNEED", 4, raising=False)
    monkeypatch.setattr(os, "POSIX_FADV_SEQUENTIAL", 2, raising=False)
    monkeypatch.setattr(source_tensor, "SLICE_NUMBERS", 512)
    monkeypatch.setattr(source_tensor, "KEPT_BYTES", 4096)
    assert mx.array_equal(mx.concatenate(list(tensor.slices())), rows)
    assert given_back == [(0, tensor.info.start + 4096 * part) for part in (1, 2, 3, 4)]


def test_where_the_system_refuses_advice_the_bytes_are_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    refused: list[int] = []

    def refuse(descriptor: int, start: int, length: int, advice: int) -> None:
        refused.append(advice)
        raise OSError(errno.ENOSYS, "Function not implemented")

    rows = mx.random.normal((64, 128), key=mx.random.key(1)).astype(mx.bfloat16)
    monkeypatch.setattr(os, "posix_fadvise", refuse, raising=False)
    monkeypatch.setattr(os, "POSIX_FADV_DONTNEED", 4, raising=False)
    monkeypatch.setattr(os, "POSIX_FADV_SEQUENTIAL", 2, raising=False)
    monkeypatch.setattr(source_tensor, "KEPT_BYTES", 4096)
    assert mx.array_equal(mx.concatenate(list(_stored(tmp_path, rows).slices())), rows)
    assert {*refused} == {2, 4}


def test_where_the_system_takes_no_advice_the_bytes_are_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = mx.random.normal((64, 128), key=mx.random.key(1)).astype(mx.bfloat16)
    monkeypatch.delattr(os, "posix_fadvise", raising=False)
    assert mx.array_equal(mx.concatenate(list(_stored(tmp_path, rows).slices())), rows)


@pytest.mark.parametrize("bits", [0x7F80, 0xFF80, 0x7FC0, 0xFFFF, 0x7F81])
def test_nan_and_infinity_are_refused(tmp_path: Path, bits: int) -> None:
    stored = np.full((4, 32), 0xFF7F, np.uint16)  # the least that there is
    assert len(list(_stored(tmp_path, mx.array(stored).view(mx.bfloat16)).slices())) == 1
    stored[3, 7] = bits
    with pytest.raises(CheckpointError, match=r"rows .*holds NaN or infinity"):
        list(_stored(tmp_path, mx.array(stored).view(mx.bfloat16)).slices())
