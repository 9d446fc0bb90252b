from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks import conversion
from benchmarks.conversion import command, main, table
from tests.convert.small_source import write_source


def test_a_conversion_is_measured_and_leaves_nothing_but_its_report(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    source, scratch, file = write_source(tmp_path / "source"), tmp_path / "scratch", tmp_path / "report.json"
    assert main([str(source), str(scratch), "--runs", "2", "--output", str(file)]) == 0
    report = json.loads(file.read_text())
    *_, last_line = capfd.readouterr().out.splitlines()
    assert json.loads(last_line) == report
    assert [run["converter"] for run in report["runs"]] == ["gemma-mlx", "gemma-mlx"]
    source_bytes = (source / "model.safetensors").stat().st_size
    for run in report["runs"]:
        text_bytes = sum(path.stat().st_size for path in source.glob("*.json*"))
        assert 0.2 * source_bytes < run["bytes_written"] < source_bytes + 2 * text_bytes
        assert 20e6 < run["peak_resident_bytes"] < 2e9
        assert 0 < run["processor_s"] < 20 * run["s"]
    assert not list(scratch.glob("converted*"))


def test_what_cannot_be_converted_ends_with_exit_code_2(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert main([str(tmp_path / "nothing"), str(tmp_path)]) == 2
    assert "gemma-mlx could not convert" in capfd.readouterr().err
    assert main([str(tmp_path), str(tmp_path), "--runs", "0"]) == 2


def test_a_calibration_is_handed_to_our_converter_alone(tmp_path: Path) -> None:
    line = command("gemma-mlx", tmp_path, tmp_path / "out", tmp_path / "prompts.jsonl")
    assert line[-2:] == ["--calibration", str(tmp_path / "prompts.jsonl")]
    assert "--calibration" not in command("gemma-mlx", tmp_path, tmp_path / "out")
    assert main([str(tmp_path), str(tmp_path), "--peer", "--calibration", "x"]) == 2


def test_the_converters_take_turns_at_being_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def measured(converter: str, *_: object) -> dict[str, object]:
        return {"converter": converter, "bytes_written": 1, "peak_resident_bytes": 1, "processor_s": 1.0, "s": 1.0}

    monkeypatch.setattr(conversion, "find_spec", lambda name: name)
    monkeypatch.setattr(conversion, "measure", measured)
    monkeypatch.setattr(conversion.metadata, "version", lambda name: "0")
    assert main([str(tmp_path), str(tmp_path), "--peer", "--runs", "3"]) == 0
    runs = json.loads(capsys.readouterr().out.splitlines()[-1])["runs"]
    ours, peer = "gemma-mlx", "mlx-vlm"
    assert [run["converter"] for run in runs] == [ours, peer, peer, ours, ours, peer]


def test_the_table_has_the_medians_of_each_converter() -> None:
    runs = [
        {"converter": "a", "bytes_written": 7e9, "peak_resident_bytes": peak, "processor_s": 9.0, "s": s}
        for peak, s in ((1e8, 1.0), (3e8, 5.0), (2e8, 3.0))
    ]
    assert table(runs).splitlines()[2:] == ["| a | 7.00 GB | 200.0 MB | 9 s | 3 s |"]
