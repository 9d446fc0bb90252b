"""WAV, AIFF and OGG files that were cut: libsndfile takes one for a shorter sound, so their headers are read here."""

from __future__ import annotations

import os
import struct
from typing import BinaryIO

from gemma_mlx.errors import InputError

FIRST_BYTES = 12
# First bytes of a file of chunks -> byte order of its sizes, and the chunk that holds the samples (WAV, AIFF).
_CHUNKED = {b"RIFF": ("<", b"data"), b"RF64": ("<", b"data"), b"RIFX": (">", b"data"), b"FORM": (">", b"SSND")}
_MOST_CHUNKS = 10_000  # Before the samples; a file of zeros would claim one every 8 bytes.
_UNKNOWN_BYTES = 0x7F000000  # From here on, a chunk's size is what a writer into a pipe put for one it did not know.
_OGG_TAIL_BYTES = 1 << 17  # Two pages at their longest.


def refuse_cut(file: BinaryIO, start: bytes, name: str) -> None:
    """InputError for a WAV, AIFF or OGG that ends before its header says. `start` are its first `FIRST_BYTES`."""
    size_bytes = file.seek(0, os.SEEK_END)
    if start[:4] in _CHUNKED:
        promised, begin = _samples_chunk(file, start)
        if size_bytes - begin < promised:
            raise InputError(
                f"{name} ends early: {size_bytes - begin:,} of {promised:,} bytes of samples are there; "
                "save or download it again"
            )
    elif start[:4] == b"OggS":
        file.seek(max(0, size_bytes - _OGG_TAIL_BYTES))
        if not _ends_stream(file.read()):
            raise InputError(f"{name} ends early: its last page does not end the stream; save or download it again")


def _samples_chunk(file: BinaryIO, start: bytes) -> tuple[int, int]:
    """(bytes promised, place of the first one) of the chunk with the samples; 0 bytes where none says how many."""
    order, wanted = _CHUNKED[start[:4]]
    begin, long_bytes = FIRST_BYTES, 0
    for _ in range(_MOST_CHUNKS):
        file.seek(begin)
        header = file.read(8)
        if len(header) < 8:
            break
        chunk, length = struct.unpack(order + "4sI", header)
        begin += 8
        if chunk == wanted:
            if start[:4] == b"RF64" and length == 0xFFFFFFFF:
                return long_bytes, begin
            return (length if length < _UNKNOWN_BYTES else 0), begin
        if chunk == b"ds64":
            long_bytes = int.from_bytes(file.read(16)[8:], "little")
        begin += length + length % 2
    return 0, 0


def _ends_stream(tail: bytes) -> bool:
    """Whether the last Ogg page in `tail` is whole and marked as the end of its stream."""
    page = tail[max(0, tail.rfind(b"OggS\0")) :]
    if len(page) < 27:
        return False
    flags, segments = page[5], page[26]
    page_bytes = 27 + segments + sum(page[27 : 27 + segments])
    return len(page) >= page_bytes and bool(flags & 4)
