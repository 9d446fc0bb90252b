"""What brings a file to the disk; `tests/decoding/test_saved_session_writing.py` kills its writers."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

import pytest

from gemma_mlx.replace_file import replacing

MACOS_FULL_SYNC = 51


@pytest.mark.parametrize("knows_it", [True, False])
def test_macos_is_asked_to_empty_the_disks_own_memory_before_the_file_is_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, knows_it: bool
) -> None:
    """A file system that does not know it gets the ordinary call instead."""
    path = tmp_path / "file"
    asked: list[tuple[str, int, bool]] = []

    def full_sync(descriptor: int, command: int) -> None:
        assert command == MACOS_FULL_SYNC
        asked.append(("full", os.fstat(descriptor).st_size, path.exists()))
        if not knows_it:
            raise OSError

    def sync(descriptor: int) -> None:
        asked.append(("plain", os.fstat(descriptor).st_size, path.exists()))

    monkeypatch.setattr(fcntl, "F_FULLFSYNC", MACOS_FULL_SYNC, raising=False)
    monkeypatch.setattr(fcntl, "fcntl", full_sync)
    monkeypatch.setattr(os, "fsync", sync)
    with replacing(path) as stream:
        stream.write(b"whole")
    assert path.read_bytes() == b"whole"
    assert asked[:-1] == [("full", 5, False), ("plain", 5, False)][: 1 if knows_it else 2]
    assert asked[-1][::2] == ("plain", True)  # the folder, once the name is in it


def test_a_writer_that_fails_leaves_the_old_file_and_nothing_beside_it(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"old")
    with pytest.raises(TypeError), replacing(path) as stream:
        stream.writelines([b"half", "no bytes"])  # type: ignore[list-item]
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]
