from __future__ import annotations

import os
import stat
import time
from pathlib import Path

import numpy as np
import pytest

from gemma_mlx.errors import GemmaError
from gemma_mlx.tasks.journal import Journal, recording_identity
from gemma_mlx.tasks.listening import Heard
from gemma_mlx.tasks.windows import Window

HEARD = Heard("eins", "one", ("loop",), -0.5, {"audio_tokens": 3}, (1, 2), (((1, -0.5), (2, -1.5)),))


def window(start_s: float) -> Window:
    return Window(start_s, start_s + 1, 1.0, np.zeros(0, np.float32), False, False)


def test_what_was_heard_is_found_again_by_its_place(tmp_path: Path) -> None:
    with Journal(tmp_path, {"a": 1}) as journal:
        assert journal.of(window(0)) is None
        journal.keep(window(0), HEARD)
        journal.keep(window(2), Heard(""))
    with Journal(tmp_path, {"a": 1}) as journal:
        assert journal.windows == 2
        assert journal.of(window(0)) == HEARD
        assert journal.of(window(2)) == Heard("")
        assert journal.of(window(1)) is None


def test_another_recording_or_setting_has_another_journal(tmp_path: Path) -> None:
    with Journal(tmp_path, {"a": 1}) as journal:
        journal.keep(window(0), HEARD)
    with Journal(tmp_path, {"a": 2}) as journal:
        assert journal.windows == 0


def test_a_line_that_a_kill_cut_is_dropped_and_written_anew(tmp_path: Path) -> None:
    with Journal(tmp_path, {}) as journal:
        for place in range(3):
            journal.keep(window(place), HEARD)
    whole = journal.path.read_bytes()
    for length in range(len(whole) * 2 // 3 + 1, len(whole)):
        journal.path.write_bytes(whole[:length])
        with Journal(tmp_path, {}) as again:
            assert again.windows == 2
            again.keep(window(2), HEARD)
        assert journal.path.read_bytes() == whole


def test_restart_throws_away(tmp_path: Path) -> None:
    with Journal(tmp_path, {}) as journal:
        journal.keep(window(0), HEARD)
    with Journal(tmp_path, {}, restart=True) as journal:
        assert journal.windows == 0
    journal.remove()
    assert not list(tmp_path.iterdir())
    journal.remove()


def test_only_its_owner_can_read_it_and_only_one_process_writes_it(tmp_path: Path) -> None:
    with Journal(tmp_path / "new", {}) as journal:
        assert stat.S_IMODE(journal.path.stat().st_mode) == 0o600
        with pytest.raises(GemmaError, match="another process"):
            Journal(tmp_path / "new", {})
    with Journal(tmp_path / "new", {}):
        pass


def test_a_folder_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(GemmaError, match="GEMMA_MLX_HOME"):
        Journal(tmp_path / "file", {})


def test_what_was_left_a_month_ago_is_gone(tmp_path: Path) -> None:
    with Journal(tmp_path, {"old": 1}) as old:
        old.keep(window(0), HEARD)
    os.utime(old.path, (time.time() - 31 * 86_400,) * 2)
    with Journal(tmp_path, {"new": 1}):
        assert not old.path.exists()


def test_a_recording_is_known_by_its_ends_its_size_and_its_time(tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    path.write_bytes(bytes(3 << 20))
    os.utime(path, (1e9, 1e9))
    before = recording_identity(path)
    moved = path.rename(tmp_path / "b.wav")
    assert recording_identity(moved) == before
    with moved.open("r+b") as file:
        file.seek(-1, os.SEEK_END)
        file.write(b"x")
    os.utime(moved, (1e9, 1e9))
    assert recording_identity(moved) != before
