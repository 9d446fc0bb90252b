"""The pictures, sounds and videos of a chat, as they were given: each once, in a file named by what is in it."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

from gemma_mlx.errors import InputError
from gemma_mlx.replace_file import replacing
from gemma_mlx.tasks.turn import Attached


class _SourceError(Exception):
    """The source is gone, or another than a moment ago."""


def keep_original(item: Attached, folder: Path) -> str | None:
    """The name of the file in `folder` that holds what `item` is made from; it is on the disk, for its owner alone.

    From then on `item` is read from there. None where the source is gone or changes while it is read; OSError where
    `folder` cannot be written.
    """
    if isinstance(item.source, Path) and item.source.parent == folder:
        return item.source.name
    try:
        digest = hashlib.blake2b(digest_size=16)
        for piece in _pieces(item):
            digest.update(piece)
        path = folder / f"{digest.hexdigest()}{item.suffix}"
        if not path.exists():
            folder.mkdir(mode=0o700, exist_ok=True)
            _copy(item, path, digest.hexdigest())
    except _SourceError:
        return None
    item.source = path
    return path.name


def _copy(item: Attached, path: Path, digest: str) -> None:
    copied = hashlib.blake2b(digest_size=16)
    with replacing(path) as stream:
        for piece in _pieces(item):
            copied.update(piece)
            stream.write(piece)
        if copied.hexdigest() != digest:
            raise _SourceError


def _pieces(item: Attached) -> Iterator[bytes]:
    try:
        yield from item.original()
    except OSError as error:
        raise _SourceError from error


def prepare_again(item: Attached) -> str | None:
    """Prepares what was kept; returns what there is to say where it cannot be, or is not what it was."""
    digest, label = item.digest, item.label
    try:
        item.prepare()
    except InputError:
        return f"{item.name} of an earlier message cannot be read any more; the model goes on without it"
    item.label = label
    if item.digest != digest:
        return f"{item.name} of an earlier message is not what it was; from now on the model gets what is there"
    return None
