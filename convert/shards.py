"""Safetensors files written as the numbers come: names, shapes and places are settled before the first byte."""

from __future__ import annotations

import json
import math
import os
import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import mlx.core as mx
import numpy as np
import numpy.typing as npt

from gemma_mlx.checkpoint import DTYPE_BYTES
from gemma_mlx.replace_file import bring_path_to_disk, bring_to_disk


@dataclass(frozen=True)
class OutputTensor:
    """A tensor to be written. `dtype` is the format's word: "BF16", "F32", "U32" or "I64"."""

    name: str
    dtype: str
    shape: tuple[int, ...]

    @property
    def nbytes(self) -> int:
        return math.prod(self.shape) * DTYPE_BYTES[self.dtype]


@dataclass(frozen=True)
class Shard:
    """One file to be written."""

    file_name: str
    header: bytes
    """All that stands before the first tensor."""
    places: dict[str, tuple[int, int]]
    """Tensor name -> its bytes, start and stop, counted from the file's beginning."""

    @property
    def nbytes(self) -> int:
        return max(stop for _, stop in self.places.values())

    @property
    def tensor_bytes(self) -> int:
        return sum(stop - start for start, stop in self.places.values())


def plan_shards(modules: Sequence[Sequence[OutputTensor]], limit_bytes: int) -> list[Shard]:
    """Spreads `modules` over files of at most `limit_bytes` of numbers; the tensors of one module stay together.

    A module larger than the limit gets a file of its own.
    """
    parts: list[list[OutputTensor]] = []
    size = limit_bytes
    for module in modules:
        module_bytes = sum(tensor.nbytes for tensor in module)
        if not parts or size + module_bytes > limit_bytes:
            parts.append([])
            size = 0
        parts[-1].extend(module)
        size += module_bytes
    return [_shard(f"model-{i:05d}-of-{len(parts):05d}.safetensors", part) for i, part in enumerate(parts, start=1)]


def _shard(file_name: str, tensors: list[OutputTensor]) -> Shard:
    entries: dict[str, object] = {"__metadata__": {"format": "mlx"}}
    offsets: dict[str, tuple[int, int]] = {}
    at = 0
    for tensor in sorted(tensors, key=lambda tensor: -DTYPE_BYTES[tensor.dtype]):  # the wide ones first: all aligned
        offsets[tensor.name] = at, at + tensor.nbytes
        entries[tensor.name] = {"dtype": tensor.dtype, "shape": tensor.shape, "data_offsets": offsets[tensor.name]}
        at += tensor.nbytes
    text = json.dumps(entries, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    header = struct.pack("<Q", len(text)) + text
    return Shard(file_name, header, {name: (len(header) + a, len(header) + b) for name, (a, b) in offsets.items()})


class ShardWriter:
    """Fills one shard, or goes on filling it: rows of any of its tensors, each tensor's own in order."""

    def __init__(self, folder: Path, shard: Shard) -> None:
        self._shard = shard
        self._next = {name: start for name, (start, _) in shard.places.items()}
        descriptor = os.open(folder / shard.file_name, os.O_RDWR | os.O_CREAT, 0o666)
        self._stream = os.fdopen(descriptor, "r+b", buffering=0)
        self._write_at(0, shard.header)
        bring_path_to_disk(folder)  # its name, without which synced bytes may be lost with the power

    def write(self, name: str, numbers: npt.NDArray[np.generic]) -> None:
        """Appends rows to the tensor `name`; the numbers of bfloat16 come as uint16."""
        stop = self._next[name] + numbers.nbytes
        assert stop <= self._shard.places[name][1], f"{name} has more rows than its header says"
        self._write_at(self._next[name], np.ascontiguousarray(numbers).data.cast("B"))
        self._next[name] = stop

    def require_whole(self, names: Iterable[str]) -> None:
        """AssertionError unless all rows of these tensors were written."""
        short = [name for name in names if self._next[name] != self._shard.places[name][1]]
        assert not short, f"{short[0]} has fewer rows than its header says"

    def sync(self) -> None:
        """Waits until all that was written is on the disk."""
        bring_to_disk(self._stream.fileno())

    def _write_at(self, place: int, data: bytes | memoryview) -> None:
        self._stream.seek(place)
        while len(data):  # the system may take less than all
            data = data[self._stream.write(data) :]

    def __enter__(self) -> ShardWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stream.close()


def as_numbers(rows: mx.array) -> npt.NDArray[Any]:
    """`rows` as `ShardWriter` takes them: bfloat16 as its bits."""
    return np.array(rows.view(mx.uint16, stream=mx.cpu) if rows.dtype == mx.bfloat16 else rows)
