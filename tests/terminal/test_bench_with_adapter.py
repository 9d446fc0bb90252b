"""--adapter of the benchmarks: it is measured, counted, and told."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from gemma_mlx.adapters.folder import read_adapter
from gemma_mlx.config import read_config
from gemma_mlx.home import miniature_folder, samples_folder
from gemma_mlx.model.gemma4 import Gemma4
from tests.adapters.miniature import write_adapter
from tests.terminal.conftest import Run

CAPTION = "A green triangle above an orange triangle."


@pytest.fixture
def adapter(tmp_path: Path) -> Path:
    return write_adapter(tmp_path / "adapter")


@pytest.fixture
def scenes(tmp_path: Path) -> Path:
    (tmp_path / "scenes").mkdir()
    shutil.copy(samples_folder() / "scene-00.png", tmp_path / "scenes")
    (tmp_path / "scenes" / "scene-00.txt").write_text(CAPTION, encoding="utf-8")
    return tmp_path / "scenes"


def test_speech(run: Run, adapter: Path, tmp_path: Path) -> None:
    (tmp_path / "said").mkdir()
    (tmp_path / "said" / "speech.wav").symlink_to(samples_folder() / "speech.wav")
    (tmp_path / "said" / "speech.txt").write_text("four plus two", encoding="utf-8")
    measured = ("bench", "speech", tmp_path / "said", "-n", 30, "-q")
    plain, adapted = (json.loads(run(*measured, *more).out) for more in ([], ["--adapter", adapter]))
    assert (plain["adapter"], plain["adapter_digest"]) == (None, "")
    assert adapted["adapter"] == "adapter"
    assert adapted["adapter_digest"]
    assert plain["points"][0]["character_error_rate"] != adapted["points"][0]["character_error_rate"]


def test_quality_measures_the_reference_and_all_others_with_it(
    run: Run, adapter: Path, scenes: Path, tmp_path: Path
) -> None:
    for name in ("one", "other"):
        (tmp_path / name).symlink_to(miniature_folder(), target_is_directory=True)
    prompts = tmp_path / "prompts.jsonl"
    prompts.write_text(json.dumps({"text": "What is 2 + 3?", "answer": "2 + 3 is 5."}), encoding="utf-8")
    measured = ("bench", "quality", "-m", tmp_path / "one", tmp_path / "other", "--prompts", prompts, "--set", scenes)
    plain, adapted = (
        json.loads(run(*measured, "-n", 20, "-q", "--output", tmp_path / name, *more).out)
        for name, more in (("plain", []), ("adapted", ["--adapter", adapter]))
    )
    assert (plain["adapter"], adapted["adapter"]) == (None, "adapter")
    shape = [(point["part"], point["folder"]) for point in adapted["points"]]
    assert shape == [("likelihood", "one"), ("set", "one"), ("likelihood", "other"), ("set", "other")]
    for before, after in zip(plain["points"], adapted["points"], strict=True):
        assert before["fingerprint"] != after["fingerprint"]
        if after["part"] == "likelihood":
            assert after["kl_max"] == 0  # both are the same model with the same adapter
            assert after["perplexity"] > 2 * before["perplexity"]
        else:
            assert (before["exact"], after["exact"], after["same_as_reference"]) == (1, 0, 1)

    other = write_adapter(tmp_path / "second", seed=1)
    refused = run(*measured, "-n", 20, "--output", tmp_path / "adapted", "--adapter", other)
    assert (refused.code, refused.out) == (2, "")
    assert "was measured with adapter" in refused.errors[-1]


def test_ocr(run: Run, adapter: Path, scenes: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gemma_mlx.terminal.bench_ocr.BUDGETS", [70])
    ended = run("bench", "ocr", scenes, "-n", 12, "-q", "--adapter", adapter)
    assert ended.code == 0
    assert {point["exact"] for point in json.loads(ended.out)["points"]} == {0}


def test_memory_holds_the_adapter_and_the_plan_counts_it(run: Run, adapter: Path) -> None:
    measured = ("bench", "memory", "--contexts", 512, "--layouts", "shared", "--needle", "--depths", 0.5, "-q")
    plain, adapted = (
        json.loads(run(*measured, "--dtype", "float32", *more).out) for more in ([], ["--adapter", adapter])
    )
    assert (plain["adapter"], adapted["adapter"]) == (None, "adapter")
    adapter_bytes = read_adapter(adapter, Gemma4(read_config(miniature_folder())).shapes()).nbytes(4)
    [before], [after] = plain["points"], adapted["points"]
    assert after["active_bytes"] - before["active_bytes"] == pytest.approx(adapter_bytes, rel=0.05)
    assert after["planned_bytes"] >= before["planned_bytes"] + adapter_bytes
    assert after["peak_bytes"] <= after["planned_bytes"]
    assert plain["needle"][0]["answer"] != adapted["needle"][0]["answer"]


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["memory", "--peer", "mlx-lm"], "--adapter has no effect on mlx-lm"),
        (["memory", "--from", "memory.json"], "--adapter has no effect with --from"),
        (["quality", "--from", "quality.json"], "--adapter has no effect with --from"),
    ],
)
def test_what_would_not_be_measured_with_it_is_refused(
    run: Run, adapter: Path, arguments: list[str], told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("benchmarks.memory.find_spec", lambda name: name)
    ended = run("bench", *arguments, "--adapter", adapter)
    assert (ended.code, ended.out) == (2, "")
    assert told in ended.errors[-1]


@pytest.mark.parametrize("verb", [["quality", "--set"], ["ocr"], ["memory", "--contexts", 512, "-m"]])
def test_what_is_no_adapter_is_one_line(run: Run, scenes: Path, tmp_path: Path, verb: list[object]) -> None:
    place = miniature_folder() if verb[-1] == "-m" else scenes
    ended = run("bench", *verb, place, "--adapter", tmp_path / "none")
    assert (ended.code, ended.out, len(ended.errors)) == (2, "", 1)
    assert "no adapter folder" in ended.errors[0]
