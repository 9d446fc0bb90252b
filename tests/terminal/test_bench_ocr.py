from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from gemma_mlx.home import samples_folder
from gemma_mlx.terminal import bench_ocr
from tests.terminal.conftest import Run


@pytest.fixture
def texts(tmp_path: Path) -> Path:
    """Two pictures of a word with what is written there."""
    folder = tmp_path / "texts"
    folder.mkdir()
    samples = json.loads((samples_folder() / "samples.json").read_text())["samples"]
    for sample in [sample for sample in samples if sample["file"].startswith("text-")][:2]:
        shutil.copyfile(samples_folder() / sample["file"], folder / sample["file"])
        (folder / sample["file"]).with_suffix(".txt").write_text(sample["expected"])
    (folder / "prompt.txt").write_text("Read the text.")
    return folder


def test_reading_is_measured_at_every_budget_beside_another_system(
    run: Run, texts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bench_ocr, "BUDGETS", [70, 140])  # a picture of 1,120 tokens takes seconds
    names = sorted(path.name for path in texts.glob("*.png"))
    theirs = tmp_path / "theirs.jsonl"
    right = (texts / names[0]).with_suffix(".txt").read_text()
    lines = [{"file": names[0], "text": right}, {"file": names[1], "text": ""}]
    theirs.write_text("".join(json.dumps(line) + "\n" for line in lines))
    ended = run("bench", "ocr", texts, "-n", 24, "--hypotheses", f"other={theirs}")
    assert ended.code == 0
    points = json.loads(ended.out)["points"]
    own = [point for point in points if point.get("budget")]
    assert sorted(point["budget"] for point in own) == [70, 140]
    assert all(point["files"] == 2 for point in own)
    assert own[0]["character_error_rate"] < 0.5  # 70 tokens are what the miniature learned reading with
    (other,) = [point for point in points if not point.get("budget")]
    assert 0 < other["character_error_rate"] < 1


def test_a_folder_without_texts_is_one_line(run: Run, tmp_path: Path) -> None:
    ended = run("bench", "ocr", tmp_path)
    assert (ended.code, ended.out, len(ended.errors)) == (2, "", 1)
