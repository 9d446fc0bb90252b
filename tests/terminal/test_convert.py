from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import mlx.core as mx
import pytest
import rich.progress

from convert.conversion import ConversionReport
from convert.packing import PackedRows, pack_rows
from convert.recipes import Packing
from convert.tally import Tally
from gemma_mlx.checkpoint import read_headers
from gemma_mlx.home import find_drafter, find_model, miniature_folder, remember_model
from gemma_mlx.terminal.convert import _progress_bar, lattice_lines
from gemma_mlx.terminal.output import Output
from tests.terminal.conftest import Run


def test_a_converted_model_answers_and_becomes_the_default(run: Run, tmp_path: Path) -> None:
    destination = tmp_path / "four"
    ended = run("convert", miniature_folder(), destination, "--recipe", "4bit")
    assert (ended.code, ended.out) == (0, "")
    assert "bits per weight" in ended.err
    assert "now the model that is used" in ended.err
    assert find_model() == destination
    assert run("ask", "Hello", "-n", 3, "-q").code == 0


def test_a_converted_drafter_goes_into_its_models_folder_and_becomes_no_default(run: Run, tmp_path: Path) -> None:
    model, drafter = tmp_path / "four", miniature_folder() / "drafter"
    assert run("convert", miniature_folder(), model).code == 0
    beside = run("convert", drafter, model / "drafter")
    assert beside.code == 0
    assert f"{model} now answers with this drafter" in beside.err
    assert find_drafter(model) == model / "drafter"
    elsewhere = run("convert", drafter, tmp_path / "alone", "--recipe", "8bit")
    assert elsewhere.code == 0
    assert f"--drafter {tmp_path / 'alone'}" in elsewhere.err
    assert find_model() == model


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["no/such/folder", "out"], "no/such/folder"),
        ([str(miniature_folder()), "out", "--recipe", "3bit"], "3bit"),
    ],
)
def test_wrong_usage_writes_nothing(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], told: str
) -> None:
    monkeypatch.chdir(tmp_path)
    ended = run("convert", *arguments)
    assert (ended.code, ended.out) == (2, "")
    assert told in ended.errors[0]
    assert not list(tmp_path.glob("out*"))


def test_a_destination_that_exists_is_kept(run: Run, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine").write_text("x", encoding="utf-8")
    assert run("convert", miniature_folder(), tmp_path / "out").code == 2
    assert (tmp_path / "out" / "mine").read_text(encoding="utf-8") == "x"


def test_ctrl_c_keeps_the_work_and_says_how_it_goes_on(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    packed = []

    def interrupted(rows: mx.array, packing: Packing) -> PackedRows:
        packed.append(rows)
        if len(packed) > 5:
            raise KeyboardInterrupt
        return pack_rows(rows, packing)

    with monkeypatch.context() as patched:
        patched.setattr("convert.job.pack_rows", interrupted)
        ended = run("convert", miniature_folder(), tmp_path / "out")
    assert (ended.code, ended.out) == (130, "")
    assert f"{tmp_path / 'out.partial'} keeps what is done; the same command goes on from there" in ended.err
    other = run("convert", miniature_folder(), tmp_path / "out", "--recipe", "8bit")
    assert other.code == 2
    assert "unfinished conversion of another recipe (4bit)" in other.errors[0]
    assert run("convert", miniature_folder(), tmp_path / "out", "--recipe", "8bit", "--restart").code == 0


def test_json_is_one_object_with_what_was_made_of_what(run: Run, tmp_path: Path) -> None:
    ended = run("convert", miniature_folder(), tmp_path / "out", "--json", "-q")
    assert ended.code == 0
    told = json.loads(ended.out)
    assert ended.out.count("\n") == 1
    assert (told["source"], told["revision"], told["recipe"]) == (str(miniature_folder()), None, "4bit")
    assert told["bytes"] == sum(path.stat().st_size for path in (tmp_path / "out").iterdir())
    assert told["tensors"] == len(read_headers(miniature_folder()))
    assert told["seconds"] > 0
    assert 0 < told["tallies"]["down_proj"]["relative_error"] < 0.2
    failed = run("convert", miniature_folder(), tmp_path / "out", "--json")
    assert (failed.code, failed.out) == (2, "")
    assert "exists" in json.loads(failed.err)["error"]


def test_a_folder_is_converted_without_the_library_of_the_hub() -> None:
    """It takes longer to import than all else."""
    code = "import sys, gemma_mlx.terminal.cli, convert.conversion; sys.exit('huggingface_hub' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


NAMES = [
    b"ends in a space ",
    b"ends in a line\n",
    pytest.param(b"\xff", marks=pytest.mark.skipif(sys.platform == "darwin", reason="macOS has UTF-8 names only")),
]


@pytest.mark.parametrize("name", NAMES)
def test_a_model_folder_of_any_name_is_remembered(tmp_path: Path, name: bytes) -> None:
    folder = tmp_path / os.fsdecode(name)
    folder.mkdir()
    (folder / "config.json").touch()
    remember_model(folder)
    assert find_model() == folder


def test_a_deviation_is_told_only_where_nothing_was_rounded_off_the_lattice() -> None:
    """Beside a rounded number near 0 it would be thousands of percent, and say nothing."""
    report = ConversionReport(
        tensors=1,
        bytes_written=1,
        bits_per_weight=5.0,
        changes={"q_proj": Tally(blocks=4, numbers=128, same_numbers=96, largest_deviation=0.0078)},
        off_lattice="",
        seconds=1.0,
        is_drafter=False,
    )
    [line] = lattice_lines(report)
    assert line.endswith("75.00% of the numbers are the same in bfloat16, the others within 0.78%")
    off = Tally(blocks=4, blocks_off_lattice=1, numbers=128, same_numbers=96, largest_deviation=55.9)
    line, rounded = lattice_lines(replace(report, changes={"q_proj": off}, off_lattice="a (1 of 4 blocks)"))
    assert line.endswith("75.00% of the numbers are the same in bfloat16")
    assert rounded == "rounded: a (1 of 4 blocks)"


def test_time_left_is_known_where_minutes_pass_without_a_byte(monkeypatch: pytest.MonkeyPatch) -> None:
    now_s, bars = 0.0, []

    class Watched(rich.progress.Progress):
        def __init__(self, *columns: rich.progress.ProgressColumn, **options: Any) -> None:
            super().__init__(*columns, get_time=lambda: now_s, **options)
            bars.append(self)

    monkeypatch.setattr(rich.progress, "Progress", Watched)
    monkeypatch.setattr(Output, "shows_status", True)
    with _progress_bar(Output(), "converting") as progress:
        assert progress is not None
        for minute in range(1, 5):  # a matrix of 500 bytes at once, and one of 100 a second later
            now_s = 60.0 * minute
            progress(600 * minute - 100, 6000)
            now_s += 1
            progress(600 * minute, 6000)
        [task] = bars[0].tasks
    assert task.time_remaining == pytest.approx(360, rel=0.2)
