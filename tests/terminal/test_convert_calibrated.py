"""Error feedback in `gemma-mlx convert`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from gemma_mlx.home import miniature_folder
from tests.terminal.conftest import Run


@pytest.fixture
def prompts(tmp_path: Path) -> Path:
    file = tmp_path / "prompts.jsonl"
    lines = '{"text": "What is 2 + 3?", "answer": "2 + 3 = 5"}\n{"text": "Tell me a joke and say the alphabet."}\n'
    file.write_text(20 * lines, encoding="utf-8")
    return file


def test_layers_are_rounded_on_the_prompts_of_a_file(run: Run, tmp_path: Path, prompts: Path) -> None:
    ended = run("convert", miniature_folder(), tmp_path / "out", "--calibration", prompts, "--json")
    assert ended.code == 0
    assert "rounding the layers with error feedback on 40 prompts with" in ended.err
    [told] = [line for line in ended.err.splitlines() if line.startswith("outputs of the layers' matrices change by")]
    found = json.loads(ended.out)
    assert found["calibration"]["prompts"] == 40
    tally = found["tallies"]["down_proj"]
    assert 0 < tally["relative_output_error"] < tally["plain_relative_output_error"]
    assert tally["relative_error"] > found["tallies"]["embed_tokens"]["relative_error"]
    first, second = (float(word.rstrip("%")) for word in told.split() if word.endswith("%"))
    assert 0 < first < second
    answer = run("ask", "What is 2 + 3?", "-m", tmp_path / "out", "-q")
    assert (answer.code, answer.out.strip()) == (0, "2 + 3 = 5")


def test_without_a_calibration_none_is_told_of(run: Run, tmp_path: Path) -> None:
    ended = run("convert", miniature_folder(), tmp_path / "out", "--json")
    assert json.loads(ended.out)["calibration"] is None
    assert "outputs of" not in ended.err
    assert "feedback" not in ended.err


@pytest.mark.parametrize(
    ("source", "flags", "told"),
    [
        ("", ["--recipe", "qat"], "--calibration has no effect with --recipe qat, whose codes are exact already"),
        ("", ["--recipe", "bf16"], "--calibration has no effect with --recipe bf16, which rounds nothing"),
        ("drafter", [], "a drafter's errors cost time and never a word"),
    ],
)
def test_what_it_does_nothing_for_is_refused(
    run: Run, tmp_path: Path, prompts: Path, source: str, flags: list[str], told: str
) -> None:
    ended = run("convert", miniature_folder() / source, tmp_path / "out", "--calibration", prompts, *flags)
    assert (ended.code, ended.out) == (2, "")
    assert told in ended.errors[-1]
    assert not list(tmp_path.glob("out*"))


def test_a_handful_of_tokens_is_refused(run: Run, tmp_path: Path) -> None:
    prompts = tmp_path / "prompts.txt"
    prompts.write_text("Hello\n", encoding="utf-8")
    ended = run("convert", miniature_folder(), tmp_path / "out", "--calibration", prompts)
    assert ended.code == 2
    assert "1 prompt with" in ended.errors[0]
    assert "give it 768 tokens" in ended.errors[0]
    assert not list(tmp_path.glob("out*"))


def test_a_file_that_is_missing_is_told_before_anything_is_downloaded(run: Run, tmp_path: Path) -> None:
    ended = run("convert", "google/gemma-4-12B-it", tmp_path / "out", "--calibration", tmp_path / "no.jsonl")
    assert (ended.code, len(ended.errors)) == (2, 1)
    assert "no.jsonl" in ended.errors[0]
