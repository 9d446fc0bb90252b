"""What the miniature answers about files on disk, through the command line: the whole job, measured."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

SAMPLES = Path(__file__).parents[1] / "assets" / "samples"
MOST_WRONG_CHARACTERS = 0.15
"""Of a dozen lines; over 256 held-out ones the rate is in assets/miniature/scores.json."""


def samples(task: str) -> list[dict[str, Any]]:
    table = json.loads((SAMPLES / "samples.json").read_text(encoding="utf-8"))
    return [row for row in table["samples"] if row["task"] == task]


def answers(task: str, *command: str) -> list[tuple[str, str]]:
    """(expected, answered) for each sample of a task, all in one run of the command."""
    rows = samples(task)
    files = [str(SAMPLES / row["file"]) for row in rows]
    arguments = [sys.executable, "-m", "gemma_mlx", *command, *files, "--json", "-q"]
    done = subprocess.run(arguments, capture_output=True, text=True, check=True, stdin=subprocess.DEVNULL)
    told = [json.loads(line) for line in done.stdout.splitlines()]
    found = [one["text"] for one in told if one.get("event", "finished") == "finished"]
    return [(row["expected"], text) for row, text in zip(rows, found, strict=True)]


def edits(expected: list[str], found: list[str]) -> int:
    """How many insertions, deletions and replacements lead from one to the other."""
    row = list(range(len(found) + 1))
    for i, wanted in enumerate(expected, start=1):
        before, row[0] = row[0], i
        for j, got in enumerate(found, start=1):
            before, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, before + (wanted != got))
    return row[-1]


@pytest.mark.parametrize(
    ("expected", "found", "count"), [("abc", "abc", 0), ("abc", "axc", 1), ("abc", "", 3), ("ab", "xaby", 2)]
)
def test_edits_are_counted(expected: str, found: str, count: int) -> None:
    assert edits(list(expected), list(found)) == count


def test_pictures_are_described() -> None:
    pairs = answers("caption", "caption")
    assert len(pairs) > 10
    assert sum(expected == found for expected, found in pairs) >= 0.9 * len(pairs)


def test_speech_is_written_down() -> None:
    pairs = answers("transcribe", "transcribe")
    assert len(pairs) > 10
    wrong = sum(edits(expected.split(), found.split()) for expected, found in pairs)
    assert wrong <= 0.1 * sum(len(expected.split()) for expected, _ in pairs)


def test_text_is_read() -> None:
    pairs = answers("read", "caption", "--prompt", "Read the text in this image.")
    assert len(pairs) > 10
    wrong = sum(edits(list(expected), list(found)) for expected, found in pairs)
    assert wrong <= MOST_WRONG_CHARACTERS * sum(len(expected) for expected, _ in pairs)
