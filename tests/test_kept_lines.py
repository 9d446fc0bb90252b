"""Lines that are kept: alone, whole, and as they were where one more does not fit."""

from __future__ import annotations

import resource
from pathlib import Path

import pytest

from gemma_mlx.kept_lines import KeptLines


def test_what_is_no_object_is_passed_over_and_a_cut_line_cut_off(tmp_path: Path) -> None:
    path = tmp_path / "new" / "lines"
    lines = KeptLines(path)
    lines.add({"a": "\n\u2028"})
    lines.close()
    whole = path.read_bytes()
    path.write_bytes(whole + b'[1]\n\xff\n{"b": 2}\n{"c"')
    lines = KeptLines(path)
    lines.close()
    assert (lines.found, lines.passed_over) == ([{"a": "\n\u2028"}, {"b": 2}], 2)
    assert path.read_bytes() == whole + b'[1]\n\xff\n{"b": 2}\n'


def test_starting_anew_takes_nothing_from_a_process_at_work(tmp_path: Path) -> None:
    lines = KeptLines(tmp_path / "lines")
    lines.add({"a": 1})
    with pytest.raises(BlockingIOError):
        KeptLines(tmp_path / "lines", restart=True)
    lines.add({"a": 2})
    lines.close()
    assert (tmp_path / "lines").read_bytes() == b'{"a": 1}\n{"a": 2}\n'
    lines = KeptLines(tmp_path / "lines", restart=True)
    lines.close()
    assert lines.found == []


def test_a_line_that_does_not_fit_on_the_disk_leaves_no_part(tmp_path: Path) -> None:
    lines = KeptLines(tmp_path / "lines")
    lines.add({"a": 1})
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (16, hard))
    try:
        with pytest.raises(OSError, match=r"space|large"):
            lines.add({"a": 2})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    lines.close()
    assert (tmp_path / "lines").read_bytes() == b'{"a": 1}\n'
