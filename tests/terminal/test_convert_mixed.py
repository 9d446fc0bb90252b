from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import pytest

from gemma_mlx.home import miniature_folder
from tests.terminal.conftest import Run


def _folder_bytes(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.iterdir())


def test_a_recipe_that_there_is_not_names_mixed_too(run: Run, tmp_path: Path) -> None:
    ended = run("convert", miniature_folder(), tmp_path / "out", "--recipe", "nope")
    assert (ended.code, len(ended.errors)) == (2, 1)
    assert ended.errors[0].endswith("bf16, mixed")


def test_a_size_is_filled_and_another_one_needs_no_measuring(run: Run, tmp_path: Path) -> None:
    prompts, kept = tmp_path / "prompts.jsonl", tmp_path / "kept.json"
    prompts.write_text('{"text": "Hi", "answer": "Hello!"}\n', encoding="utf-8")
    flags = ("--recipe", "mixed", "--calibration", prompts)
    first = run("convert", miniature_folder(), tmp_path / "a", *flags, "--target-gb", "0.0063", "--json")
    assert first.code == 0
    chosen_on = json.loads(first.out)["chosen_on"]
    assert chosen_on.startswith("1 prompt with ")
    assert f"chosen by what packing it costs on {chosen_on} |" in (tmp_path / "a" / "README.md").read_text("utf-8")
    beside = tmp_path / "a.sensitivity.json"
    assert len(json.loads(beside.read_text(encoding="utf-8"))["samples"]) == 1
    assert 0.98 * 6_300_000 < _folder_bytes(tmp_path / "a") <= 6_300_000
    measured = beside.read_bytes()
    beside.rename(kept)
    again = run("convert", miniature_folder(), tmp_path / "b", *flags, "--target-gb", "0.0068", "--sensitivity", kept)
    assert again.code == 0
    assert kept.read_bytes() == measured
    assert _folder_bytes(tmp_path / "a") < _folder_bytes(tmp_path / "b") <= 6_800_000
    assert run("ask", "Hello", "-m", tmp_path / "b", "-n", 3, "-q").code == 0
    beyond = run("convert", miniature_folder(), tmp_path / "c", *flags, "--target-gb", "1", "--sensitivity", kept)
    assert beyond.code == 2
    assert "cannot be met" in beyond.errors[-1]
    assert not list(tmp_path.glob("c*"))


@pytest.mark.parametrize(
    ("target_gb", "told"),
    [
        ("1", "cannot be met"),
        ("0.001", "cannot be met"),
        ("0.0063", "holds an unfinished conversion of another recipe"),
    ],
)
def test_what_would_be_refused_after_the_measuring_is_refused_before(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, target_gb: str, told: str
) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("convert.conversion._write_shards", interrupted)
        assert run("convert", miniature_folder(), tmp_path / "out").code == 130
    ended = run("convert", miniature_folder(), tmp_path / "out", "--recipe", "mixed", "--target-gb", target_gb)
    assert (ended.code, len(ended.errors)) == (2, 1)
    assert told in ended.errors[0]
    assert not (tmp_path / "out.sensitivity.json").exists()


def test_a_disk_too_small_for_the_target_is_noticed_before_the_measuring(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("convert.disk_space.shutil.disk_usage", lambda path: SimpleNamespace(free=6_000_000))
    ended = run("convert", miniature_folder(), tmp_path / "out", "--recipe", "mixed", "--target-gb", "0.0063")
    assert ended.code == 1
    assert "0.01 GB are still to be written" in ended.errors[0]
    assert not list(tmp_path.glob("out*"))


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        (["--recipe", "mixed"], "--target-gb 7.5"),
        (["--recipe", "mixed", "--target-gb", "1e300"], "--target-gb 7.5"),
        (["--recipe", "mixed", "--target-gb", "-1"], "--target-gb 7.5"),
        (["--recipe", "mixed", "--target-gb", "1", "--round"], "leave it out with --recipe mixed"),
        (["--target-gb", "7.5"], "--target-gb has no effect with --recipe 4bit"),
        (["--recipe", "8bit", "--sensitivity", "x.json"], "--sensitivity has no effect"),
        (["--recipe", "mixed", "--target-gb", "1", "--calibration", "no.jsonl"], "no.jsonl"),
    ],
)
def test_flags_that_do_not_go_together_write_nothing(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, flags: list[str], told: str
) -> None:
    monkeypatch.chdir(tmp_path)
    ended = run("convert", miniature_folder(), "out", *flags)
    assert (ended.code, ended.out) == (2, "")
    assert told in ended.errors[0]
    assert not list(tmp_path.glob("out*"))


def test_a_calibration_prompt_without_an_answer_is_named(run: Run, tmp_path: Path) -> None:
    prompts = tmp_path / "prompts.txt"
    prompts.write_text("Hello\n", encoding="utf-8")
    flags = ("--recipe", "mixed", "--target-gb", "0.0063", "--calibration", prompts)
    ended = run("convert", miniature_folder(), tmp_path / "out", *flags)
    assert ended.code == 2
    assert "line 1 of" in ended.errors[0]
    assert "has no answer" in ended.errors[0]
