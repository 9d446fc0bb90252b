"""The measurement of a long recording in small: joined from the sample clips, for espeak-ng is not everywhere."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from benchmarks import long_speech
from benchmarks.error_rates import error_rates
from benchmarks.long_speech import cue_errors, finish, killed_runs, shortcomings, start
from benchmarks.spoken import Utterance
from gemma_mlx.home import miniature_folder, samples_folder
from gemma_mlx.inputs.waveform import read_waveform
from gemma_mlx.tasks.transcript import PRECISION_S

RATE_HZ = 16_000
NUMBERS = (0, 2, 3, 4, 5, 7)
MINUTE = 4
"""The clips, that often with pauses between, are a minute."""
QUIET_HOPS = 12
"""How much of what is not loud is kept at both ends: words begin and end softly."""
GOOD: dict[str, Any] = {
    "word_error_rate": 0.02,
    "clip_word_error_rate": 0.01,
    "cue_error_max_s": 0.1,
    "monotonic": True,
    "peak_bytes": 104,
    "peak_bytes_of_one_minute": 100,
    "same_bytes_after_kills": True,
    "nothing_twice": True,
}


@pytest.fixture(scope="module")
def minute(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Utterance]]:
    """A recording over faint noise, and what is said in it: from the first to the last loud 10 ms of each clip."""
    rng = np.random.default_rng(0)
    rows = json.loads((samples_folder() / "samples.json").read_text(encoding="utf-8"))["samples"]
    said = {row["file"]: row["expected"] for row in rows}
    parts: list[Any] = []
    truth: list[Utterance] = []
    for name in [f"speech-{number:02}.flac" for number in NUMBERS] * MINUTE:
        parts.append(np.zeros(int(rng.uniform(0.4, 1.5) * RATE_HZ), np.float32))
        clip = read_waveform(samples_folder() / name)
        levels = np.sqrt((clip[: len(clip) // 160 * 160].reshape(-1, 160) ** 2).mean(axis=1))
        loud = np.flatnonzero(levels > 0.15 * levels.max())
        first = max(0, loud[0] - QUIET_HOPS)
        begin_s = sum(map(len, parts)) / RATE_HZ - first / 100
        parts.append(clip[first * 160 : (loud[-1] + 1 + QUIET_HOPS) * 160])
        truth.append(Utterance(begin_s + loud[0] / 100, begin_s + (loud[-1] + 1) / 100, said[name]))
    samples = np.concatenate(parts)
    path = tmp_path_factory.mktemp("long") / "long.wav"
    soundfile.write(path, samples + rng.normal(0, 1e-4, len(samples)), RATE_HZ)
    return path, truth


def test_a_minute_killed_twice_is_as_one_that_was_not(minute: tuple[Path, list[Utterance]], tmp_path: Path) -> None:
    path, truth = minute
    finish(start(tmp_path / "whole", path, miniature_folder()))
    whole = (tmp_path / "whole" / "long.json").read_bytes()
    segments = json.loads(whole)["segments"]
    assert max(cue_errors(segments, truth)) <= PRECISION_S
    times = [time_s for segment in segments for time_s in (segment["start_s"], segment["end_s"])]
    assert times == sorted(times)
    words = " ".join(utterance.words for utterance in truth)
    found = " ".join(segment["text"] for segment in segments)
    assert (error_rates([(words, found)]).word_error_rate or 0) <= 0.04
    killed = killed_runs(tmp_path / "killed", path, miniature_folder(), 2, len(segments))
    assert killed["nothing_twice"]
    assert 0.5 * len(segments) < killed["kept_before_the_last_run"] < len(segments)
    assert (tmp_path / "killed" / "long.json").read_bytes() == whole


def test_what_the_last_run_hears_twice_is_noticed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    journal = tmp_path / "home" / "transcripts" / "a.jsonl"
    journal.parent.mkdir(parents=True)

    def last_run(place: str) -> None:
        with journal.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"place": place}) + "\n")
        journal.unlink()

    monkeypatch.setattr(long_speech, "finish", lambda _: {})
    for place, is_new in (("1-2", True), ("0-1", False)):
        journal.write_text('{"place": "0-1"}\n', encoding="utf-8")
        monkeypatch.setattr(long_speech, "start", lambda *_, place=place: last_run(place))
        assert killed_runs(tmp_path, tmp_path, tmp_path, 0, 2)["nothing_twice"] is is_new


def test_a_cue_is_held_against_what_is_said_in_it() -> None:
    truth = [Utterance(1, 2, "a"), Utterance(2.5, 3, "b"), Utterance(5, 6, "c")]
    segments = [{"start_s": 0.9, "end_s": 3.2}, {"start_s": 5, "end_s": 6}, {"start_s": 8, "end_s": 9}]
    assert cue_errors(segments, truth) == pytest.approx([0.1, 0.2, 0, 0, 1])


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("word_error_rate", 0.04),
        ("cue_error_max_s", 0.3),
        ("monotonic", False),
        ("peak_bytes", 106),
        ("same_bytes_after_kills", False),
        ("nothing_twice", False),
    ],
)
def test_what_is_not_as_it_should_be_is_said(name: str, value: Any) -> None:
    assert shortcomings(GOOD) == []
    assert len(shortcomings({**GOOD, name: value})) == 1
