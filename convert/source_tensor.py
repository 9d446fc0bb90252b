"""A tensor of the source: what is known of it, and its numbers a few rows at a time.

Plain reads rather than a memory map: mapped pages count as resident memory.
"""

from __future__ import annotations

import io
import math
import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from typing import Any, Protocol

import mlx.core as mx
import numpy as np
import numpy.typing as npt

from convert.overlap import read_ahead
from gemma_mlx.checkpoint import TensorInfo
from gemma_mlx.errors import CheckpointError

SLICE_NUMBERS = 1 << 20
"""Read at once, handed from thread to thread, and rounded by one call of NumPy a step: so many that the handing does
not count, nor that threads wait for their turn at Python between steps, and so few that the size of a tensor does not
matter for memory."""
KEPT_BYTES = 1 << 23
"""Of what was read, in Linux's page cache."""


class Readable(Protocol):
    """Bytes that come one after the other: an unbuffered file, or an answer of a server."""

    def readinto(self, buffer: memoryview, /) -> int | None:
        """Fills the beginning of `buffer`; how many bytes, 0 at the end."""
        ...


class SourceTensor(Protocol):
    """A tensor to convert: what is known of it, and its numbers a few rows at a time."""

    @property
    def name(self) -> str:
        """As the source spells it."""
        ...

    @property
    def shape(self) -> tuple[int, ...]: ...

    @property
    def dtype(self) -> str:
        """The format's word for what `slices` gives: "BF16", "F32", "I64", and "U32" or "U8" for packed parts."""
        ...

    @property
    def nbytes(self) -> int:
        """To be read of the source."""
        ...

    def slices(self) -> Iterator[mx.array]:
        """All rows in order, as arrays [rows, ...] of that type, about SLICE_NUMBERS at a time.

        Raises CheckpointError if a number is NaN or infinite, or if the source ends early.
        """
        ...


class _ReadOnce:
    """A file on Linux whose bytes leave the page cache once they were read.

    No byte is needed twice, and others would have to go for them. The pages that they leave take the next bytes: in a
    virtual machine, to be given new pages takes ten times as long as to read (2.1 ns of a core a byte against 0.2).
    """

    def __init__(self, stream: io.FileIO) -> None:
        self._stream = stream
        self._kept_bytes = 0

    def readinto(self, buffer: memoryview, /) -> int | None:
        count = self._stream.readinto(buffer)
        self._kept_bytes += count or 0
        if self._kept_bytes >= KEPT_BYTES:
            with suppress(OSError):  # it is advice
                os.posix_fadvise(self._stream.fileno(), 0, self._stream.tell(), os.POSIX_FADV_DONTNEED)
            self._kept_bytes = 0
        return count


@contextmanager
def _opened_file(info: TensorInfo) -> Iterator[Readable]:
    with info.file.open("rb", buffering=0) as stream:
        stream.seek(info.start)
        if hasattr(os, "posix_fadvise"):  # Linux reads twice as far ahead then; macOS does so by itself
            with suppress(OSError):
                os.posix_fadvise(stream.fileno(), info.start, info.nbytes, os.POSIX_FADV_SEQUENTIAL)
            yield _ReadOnce(stream)
        else:
            yield stream


@dataclass(frozen=True)
class StoredTensor:
    """A tensor that lies in a file as it is."""

    info: TensorInfo
    opened: Callable[[TensorInfo], AbstractContextManager[Readable]] = _opened_file
    """Gives its bytes, and maybe what follows them in the file."""

    @property
    def name(self) -> str:
        return self.info.name

    @property
    def shape(self) -> tuple[int, ...]:
        return self.info.shape

    @property
    def dtype(self) -> str:
        return self.info.dtype

    @property
    def nbytes(self) -> int:
        return self.info.nbytes

    def slices(self) -> Iterator[mx.array]:
        with self.opened(self.info) as stream:
            yield from rows_of(self.info, stream)


def rows_of(info: TensorInfo, stream: Readable) -> Iterator[mx.array]:
    """The rows of a tensor whose bytes come next in `stream`, which is read ahead in another thread.

    Raises CheckpointError if a number is NaN or infinite, or if the stream ends early.
    """
    row_shape = info.shape[1:]
    for numbers in read_ahead(_blocks_of(info, stream)):
        array = mx.array(numbers)
        yield (array.view(mx.bfloat16) if info.dtype == "BF16" else array).reshape(-1, *row_shape)


def _blocks_of(info: TensorInfo, stream: Readable) -> Iterator[npt.NDArray[Any]]:
    """The same as stored: bfloat16 as its bits."""
    row_numbers = math.prod(info.shape[1:])
    rows_at_once = max(1, SLICE_NUMBERS // row_numbers)
    for first in range(0, info.shape[0], rows_at_once):
        rows = min(rows_at_once, info.shape[0] - first)
        numbers = np.empty(rows * row_numbers, _STORED[info.dtype])
        left = numbers.data.cast("B")
        while len(left):
            count = stream.readinto(left)
            if not count:
                raise CheckpointError(f"{info.file} ended inside {info.name}; download it again")
            left = left[count:]
        if not all_finite(numbers):
            raise CheckpointError(f"{info.name} in {info.file} holds NaN or infinity; download it again")
        yield numbers


_STORED = {"BF16": "<u2", "F32": "<f4", "U32": "<u4", "U8": "u1", "I64": "<i8"}


def all_finite(numbers: npt.NDArray[Any]) -> bool:
    """Whether none is NaN or infinite; bfloat16 as its bits, as uint16."""
    if numbers.dtype == np.uint16:  # bfloat16: NaN and infinity are the largest bits, with the sign's and without it
        return bool(numbers.max(initial=0) < 0xFF80 and numbers.view(np.int16).max(initial=0) < 0x7F80)
    return numbers.dtype.kind in "iu" or bool(np.isfinite(numbers).all())
