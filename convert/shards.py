"""Safetensors files written as the numbers come: names, shapes and places are settled before the first byte."""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

import mlx.core as mx
import numpy as np

from gemma_mlx.checkpoint import DTYPE_BYTES


@dataclass(frozen=True)
class OutputTensor:
    """A tensor to be written. `dtype` is the format's word: "BF16", "U32" or "I64"."""

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
    """Fills one shard: rows of any of its tensors, each tensor's own in order. Every tensor is whole at the end."""

    def __init__(self, folder: Path, shard: Shard) -> None:
        self._shard = shard
        self._next = {name: start for name, (start, _) in shard.places.items()}
        self._stream = (folder / shard.file_name).open("wb")
        self._stream.write(shard.header)

    def write(self, name: str, rows: mx.array) -> None:
        """Appends `rows` (bfloat16, uint32 or int64) to the tensor `name`."""
        numbers = np.array(rows.view(mx.uint16) if rows.dtype == mx.bfloat16 else rows)
        stop = self._next[name] + numbers.nbytes
        assert stop <= self._shard.places[name][1], f"{name} has more rows than its header says"
        self._stream.seek(self._next[name])
        self._stream.write(numbers.data)
        self._next[name] = stop

    def __enter__(self) -> ShardWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stream.close()
        if error is None:
            short = [name for name, (_, stop) in self._shard.places.items() if self._next[name] != stop]
            assert not short, f"{short[0]} has fewer rows than its header says"
