"""A path, bytes or a pipe as a file that can be read at any place, as most formats of sound and video need it."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO, FileIO, IOBase
from pathlib import Path
from typing import BinaryIO, cast

from gemma_mlx.errors import InputError


@contextmanager
def seekable_file(source: Path | str | bytes | BinaryIO, kind: str) -> Iterator[BinaryIO]:
    """`source`, a `kind` of file, opened for reading at any place; of a pipe, a copy that goes when it is closed.

    InputError where it cannot be opened or copied.
    """
    if isinstance(source, bytes):
        yield cast("BinaryIO", _Bytes(source))
    elif not isinstance(source, (str, Path)):
        with _copied(source, kind) as copy:
            yield copy
    else:
        with _opened(Path(source), kind) as file:
            if file.seekable():
                yield cast("BinaryIO", file)
            else:
                with _copied(cast("BinaryIO", file), kind) as copy:
                    yield copy


def _opened(path: Path, kind: str) -> _File:
    try:
        return _File(path, "rb")
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise InputError(f"cannot open the {kind} {path}: {reason}; check the path") from error


@contextmanager
def _copied(source: BinaryIO, kind: str) -> Iterator[BinaryIO]:
    with tempfile.TemporaryFile(buffering=0) as copy:
        try:
            shutil.copyfileobj(source, copy)
        except OSError as error:
            raise InputError(
                f"cannot copy the {kind} to {tempfile.gettempdir()} to read it ({error.strerror}); make room there"
            ) from error
        copy.seek(0)
        yield cast("BinaryIO", _File(copy.fileno(), "rb", closefd=False))


class _Seekable(IOBase):
    """A damaged header sends libsndfile and FFmpeg to places that no file has, and an exception would be printed."""

    def seek(self, offset: int, whence: int = 0) -> int:
        """Returns the place, or -1, as in C, where it stays at the old one."""
        try:
            return super().seek(offset, whence)
        except (OSError, ValueError, OverflowError):
            return -1


class _Bytes(_Seekable, BytesIO):
    pass


class _File(_Seekable, FileIO):
    pass
