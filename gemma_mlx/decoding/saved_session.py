"""A session in a file, for another process to go on from. It is safetensors, so that any reader of these can open it:

    length of the header   8 bytes
    header                 __metadata__: what the session is of, what stands at each position, a sha256 of each tensor
                           and one of this header itself; then name, type, shape and place of each tensor
    tensors                the rows in use, of a layer after the other, and those of the snapshots

A session is as good as cold or it is not used at all: where the file is of another model, template, type or code, or
a bit of it has changed, `resume` says so and the session stays empty.
"""

from __future__ import annotations

import hashlib
import json
import os
import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cache
from io import BufferedReader
from pathlib import Path
from typing import Any, BinaryIO

import mlx.core as mx
import numpy as np

import gemma_mlx
from gemma_mlx.checkpoint import TensorInfo, header_bytes, read_header
from gemma_mlx.decoding.contents import Contents, Key
from gemma_mlx.decoding.session import Session
from gemma_mlx.errors import CheckpointError, GemmaError, UsageError
from gemma_mlx.replace_file import replacing

FORMAT, FORMAT_VERSION = "gemma-mlx session", "1"
_BEGINNING = f'{{"__metadata__":{{"format":"{FORMAT}",'.encode()
_NO_DIGEST = "0" * 64
_DTYPES = {"BF16": mx.bfloat16, "F32": mx.float32, "U32": mx.uint32}
_BITS = {2: mx.uint16, 4: mx.uint32}


class UnusableError(Exception):
    """Why a session cannot be gone on from, to be put after the file's name."""


@cache
def code() -> str:
    """The version of gemma-mlx and a hash of its sources: whatever changes in them, older sessions are not used."""
    return f"{gemma_mlx.__version__} (sources {source_hash(Path(gemma_mlx.__file__).parent)[:16]})"


def source_hash(folder: Path) -> str:
    """A sha256 in hex of the names and texts of all Python files in `folder` and below."""
    digest = hashlib.sha256()
    for file in sorted(folder.rglob("*.py")):
        text = file.read_bytes()
        digest.update(f"{file.relative_to(folder).as_posix()} {len(text)}\n".encode() + text)
    return digest.hexdigest()


@dataclass(frozen=True)
class Identity:
    """What a session is of. One of another identity is not used."""

    model: str
    """`checkpoint.fingerprint` of the folder."""
    template: str
    """`ChatFormat.fingerprint`."""
    dtype: str
    """The type computed in, as "bfloat16"."""
    adapter: str = ""
    """The adapter's digest; empty without one."""
    code: str = field(default_factory=code)


_WHY = {
    "model": "it is of another model",
    "template": "it was made with another chat template",
    "dtype": "it was computed in {found}, this model computes in {here}",
    "adapter": "it was made with another adapter, or without one",
    "code": "it was saved by gemma-mlx {found}, this is {here}",
}


def check_target(path: Path) -> None:
    """Raises UsageError where a session must not or cannot be saved at `path`: nothing but a session is replaced."""
    try:
        _check_target(path)
    except OSError as error:
        raise UsageError(f"{path} cannot hold a session ({error.strerror}); name another file") from error


def _check_target(path: Path) -> None:
    if not path.parent.is_dir():
        raise UsageError(f"there is no folder {path.parent} for {path.name}; make it, or name another file")
    if path.is_symlink() or (path.exists() and not path.is_file()):
        raise UsageError(f"{path} is not an ordinary file; name another one for the session")
    if not os.access(path.parent, os.W_OK):
        raise UsageError(f"{path.parent} cannot be written to; name a file in another folder")
    if path.exists() and path.stat().st_size:
        with path.open("rb") as stream:
            if stream.read(8 + len(_BEGINNING))[8:] != _BEGINNING:
                raise UsageError(f"{path} is there and is no saved session; remove it, or name another file")


def save(session: Session, path: Path, identity: Identity) -> None:
    """Saves `session` at `path`, readable by its owner alone. The file is replaced whole or left as it was.

    No row is copied on the way. Raises GemmaError in one line where it cannot be written, UsageError where `path` holds
    something else or an answer is still on its way.
    """
    check_target(path)
    try:
        contents = session.contents()
    except ValueError as error:
        raise UsageError(f"the session cannot be saved: {error}; end it or close it first") from None
    try:
        with replacing(path) as stream:
            stream.write(_header(contents, identity, dict.fromkeys(contents.arrays, _NO_DIGEST)))
            digests = {name: _write_rows(stream, array) for name, array in contents.arrays.items()}
            stream.seek(0)
            stream.write(_header(contents, identity, digests))
    except OSError as error:
        raise GemmaError(
            f"cannot save the session to {path}: {error.strerror or error}; free space or name another file"
        ) from error


def resume(session: Session, path: Path, identity: Identity, context_tokens: int | None = None) -> None:
    """Makes `session` the one saved at `path`. Raises UnusableError where it cannot; then the session is empty.

    With `context_tokens`, a session of more positions is not used.
    """
    session.reset()
    try:
        if path.exists() and not path.is_file():  # opening a pipe would wait for a writer
            raise UnusableError("it is not a file")
        with path.open("rb") as stream:
            contents, infos = _read(path, stream, identity, context_tokens)
            _check_layout(session.one_position(len(contents.snapshot_offsets)), infos)
            try:
                session.refill(contents)
            except ValueError:  # rows for more or fewer positions than there are
                raise UnusableError("it is damaged") from None
    except FileNotFoundError:
        raise UnusableError("there is no such file") from None
    except OSError as error:
        raise UnusableError(f"it cannot be read ({error.strerror or error})") from None


def _read(
    path: Path, stream: BufferedReader, identity: Identity, context_tokens: int | None
) -> tuple[Contents, dict[str, TensorInfo]]:
    """What the file at `path`, opened as `stream`, says that it holds; of the rows nothing is read yet."""
    try:
        raw, infos = header_bytes(path), {info.name: info for info in read_header(path)}
        metadata = _metadata(raw)
        _check_identity(identity, json.loads(metadata["identity"]))
        known, digests = json.loads(metadata["known"]), dict(json.loads(metadata["sha256"]))
        count = sum(1 if isinstance(entry, int) else entry[1] for entry in known["keys"])
        if context_tokens is not None and count > context_tokens:
            raise UnusableError(f"it holds {count:,} positions, and {context_tokens:,} are planned")
        keys, offsets = list(_unpacked(known["keys"])), list(known["snapshot_offsets"])
        if digests.keys() != infos.keys() or bool(infos) != bool(keys):
            raise ValueError("rows or their digests are missing")
        if not all(0 < offset <= len(keys) for offset in offsets):
            raise ValueError("a snapshot lies outside")
    except (CheckpointError, ValueError, KeyError, IndexError, TypeError, AttributeError, RecursionError):
        raise UnusableError("it is damaged") from None
    return Contents(keys, offsets, _SavedRows(stream, infos, digests)), infos


def _header(contents: Contents, identity: Identity, digests: Mapping[str, str]) -> bytes:
    """All that stands before the first tensor. It is as long whatever the digests are."""
    known = {"keys": _packed(contents.keys), "snapshot_offsets": list(contents.snapshot_offsets)}
    metadata = {
        "format": FORMAT,
        "version": FORMAT_VERSION,
        "header_sha256": _NO_DIGEST,
        "identity": json.dumps(asdict(identity)),
        "known": json.dumps(known, separators=(",", ":")),
        "sha256": json.dumps(digests),
    }
    entries: dict[str, Any] = {"__metadata__": metadata}
    words = {dtype: word for word, dtype in _DTYPES.items()}
    at = 0
    for name, array in contents.arrays.items():
        places = [at, at + array.nbytes]
        entries[name] = {"dtype": words[array.dtype], "shape": list(array.shape), "data_offsets": places}
        at += array.nbytes
    text = json.dumps(entries, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    text = text.replace(_NO_DIGEST.encode(), hashlib.sha256(text).hexdigest().encode(), 1)
    return struct.pack("<Q", len(text)) + text


def _metadata(raw: bytes) -> dict[str, Any]:
    """The metadata in the header `raw`, which is as it was written. Raises UnusableError where it is not."""
    metadata: dict[str, Any] = json.loads(raw)["__metadata__"]
    if metadata["format"] != FORMAT:
        raise UnusableError("it is no saved session")
    if metadata["version"] != FORMAT_VERSION:
        raise UnusableError(f"it is of format {metadata['version']}, this reads format {FORMAT_VERSION}")
    digest = metadata["header_sha256"]
    if hashlib.sha256(raw.replace(digest.encode(), _NO_DIGEST.encode(), 1)).hexdigest() != digest:
        raise UnusableError("it is damaged")
    return metadata


def _check_identity(here: Identity, saved: Mapping[str, str]) -> None:
    for name, value in asdict(here).items():
        if saved[name] != value:
            raise UnusableError(_WHY[name].format(found=saved[name], here=value))


def _check_layout(expected: Mapping[str, mx.array], infos: Mapping[str, TensorInfo]) -> None:
    """Raises UnusableError unless the arrays in the file are those of `expected`, but for the number of rows."""
    if infos and {name: _DTYPES[info.dtype] for name, info in infos.items()} != {
        name: array.dtype for name, array in expected.items()
    }:
        raise UnusableError("its caches are of another kind (8-bit rows, or none)")
    for name, info in infos.items():
        shape = expected[name].shape
        if (info.shape[:2], info.shape[3:]) != (shape[:2], shape[3:]):
            raise UnusableError(f"{name} has shape {list(info.shape)}, here a row has {list(shape)}")


def _write_rows(stream: BinaryIO, array: mx.array) -> str:
    """Writes `array` [B, K, S, ..] straight from the cache's memory; returns its sha256 in hex."""
    digest = hashlib.sha256()
    numbers = np.array(array.view(_BITS[array.itemsize]), copy=False)
    for index in np.ndindex(numbers.shape[:2]):
        rows = np.ascontiguousarray(numbers[index])  # they are already: nothing is copied
        digest.update(rows.data)
        stream.write(rows.data)
    return digest.hexdigest()


class _SavedRows(Mapping[str, mx.array]):
    """The tensors of a file, each read when asked for. Raises UnusableError where one is not what was written."""

    def __init__(self, stream: BufferedReader, infos: Mapping[str, TensorInfo], digests: Mapping[str, str]) -> None:
        self._stream = stream
        self._infos = infos
        self._digests = digests

    def __iter__(self) -> Iterator[str]:
        return iter(self._infos)

    def __len__(self) -> int:
        return len(self._infos)

    def __getitem__(self, name: str) -> mx.array:
        info, dtype = self._infos[name], _DTYPES[self._infos[name].dtype]
        array = mx.zeros(info.shape, _BITS[dtype.size])
        numbers = np.array(array, copy=False)  # a view of the array's memory, to be read into
        self._stream.seek(info.start)
        count = self._stream.readinto(numbers.data.cast("B"))
        if count != info.nbytes or hashlib.sha256(numbers.data).hexdigest() != self._digests[name]:
            raise UnusableError("it is damaged")
        return array.view(dtype)


def _packed(keys: Sequence[Key]) -> list[Any]:
    """`keys`, with the rows of a medium, which begin with its first, as one [digest, count]."""
    packed: list[Any] = []
    for key in keys:
        if not isinstance(key, tuple):
            packed.append(key)
        elif key[1] == 0:
            packed.append([key[0], 1])
        else:
            packed[-1][1] += 1
    return packed


def _unpacked(packed: Sequence[Any]) -> Iterator[Key]:
    """The keys that `_packed` made these of."""
    for entry in packed:
        if isinstance(entry, int):
            yield entry
        else:
            digest, count = entry
            yield from ((digest, row) for row in range(count))
