from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from benchmarks.lattice import lattice_errors, main, trained_rows
from tests.convert.lattice_source import trained_tensors
from tests.convert.small_source import write_source


def test_only_the_lattice_keeps_what_was_trained() -> None:
    naive, ours, level_8, short, exact = lattice_errors(trained_rows(64, 3840))
    assert [error.bits_per_weight for error in (naive, ours, level_8, short, exact)] == [5.0, 5.0, 4.5, 5.0, 6.0]
    assert max(naive.numbers_same, ours.numbers_same) < level_8.numbers_same < 0.7 < 0.88 < short.numbers_same < 1
    assert exact.blocks_exact == exact.numbers_same == 1
    assert 0 < exact.relative_error < short.relative_error < 0.003 < 0.04 < level_8.relative_error
    assert 0.15 < level_8.blocks_exact < 0.3  # 24.7 % in the release


def test_command_takes_one_tensor_of_each_kind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_source(tmp_path / "source", trained_tensors())
    monkeypatch.setattr(sys, "argv", ["lattice", str(tmp_path / "source")])
    main()
    printed = capsys.readouterr()
    found = json.loads(printed.out)
    assert len(found) == 8
    assert printed.err.count("| qat-f32 | 6.0 | 100.0% | 100.00% |") == 8
