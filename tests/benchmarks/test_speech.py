from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from gemma_mlx.home import samples_folder
from gemma_mlx.inputs.waveform import read_waveform
from tests.inputs.clips import clip
from tests.terminal.conftest import Run, own_home, run

__all__ = ["own_home", "run"]
NAMES = ("speech-00.flac", "speech-02.flac")


@pytest.fixture
def recordings(tmp_path: Path) -> Path:
    """Two sample clips with what is said in them; in the second, the text has a word more."""
    folder = tmp_path / "calls"
    folder.mkdir()
    rows = json.loads((samples_folder() / "samples.json").read_text(encoding="utf-8"))["samples"]
    said = {row["file"]: row["expected"] for row in rows}
    for name, more in zip(NAMES, ("", " 9"), strict=True):
        shutil.copy(samples_folder() / name, folder)
        (folder / name).with_suffix(".txt").write_text(said[name] + more, encoding="utf-8")
    return folder


def test_error_rates_beside_another_system(run: Run, recordings: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.jsonl"
    other.write_text(json.dumps({"file": NAMES[0], "text": "8 9 5 2"}) + "\n", encoding="utf-8")
    ended = run("bench", "speech", recordings, "--hypotheses", f"other={other}")
    assert ended.code == 0, ended.err
    own, others = json.loads(ended.out)["points"]
    assert (own["system"], own["texts"], own["words"], own["word_edits"]) == ("miniature", 2, 8, 1)
    assert (own["segments"], own["doubted"]) == (2, 0)
    assert own["duration_s"] == pytest.approx(2.98, abs=0.1)
    assert own["real_time_factor"] == pytest.approx(own["seconds"] / own["duration_s"])
    assert (others["system"], others["texts"], others["word_error_rate"]) == ("other", 1, 0.25)
    assert "real-time factor" in ended.err


def test_a_recording_that_cannot_be_heard_is_named_and_left_out(run: Run, recordings: Path) -> None:
    talk = np.concatenate([read_waveform(recordings / NAMES[0]), np.zeros(16_000, np.float32)] * 2)
    whole = clip([], "matroska", sound=talk, rate_hz=16_000)
    (recordings / NAMES[0]).write_bytes(whole[: len(whole) * 9 // 10])  # its first half can be heard
    ended = run("bench", "speech", recordings, "--json", "-q")
    assert ended.code == 1
    [point] = json.loads(ended.out)["points"]
    assert (point["failures"], point["texts"], point["segments"]) == ([NAMES[0]], 1, 1)
    failed, end = (json.loads(line) for line in ended.err.splitlines() if line.startswith("{"))
    assert failed["file"] == NAMES[0]
    assert "ends early" in failed["error"]
    assert "left out" in end["error"]


def test_pictures_are_wrong_usage(run: Run, tmp_path: Path) -> None:
    shutil.copy(samples_folder() / "text.png", tmp_path / "text.png")
    (tmp_path / "text.txt").write_text("GEMMA4", encoding="utf-8")
    assert run("bench", "speech", tmp_path).code == 2
