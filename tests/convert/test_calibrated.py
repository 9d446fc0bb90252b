"""Conversions whose layers are rounded with error feedback."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import mlx.core as mx
import pytest

from convert import calibrated
from convert.calibrated import Calibration, calibration_of
from convert.calibration import Exchange
from convert.conversion import ConversionReport, convert_source
from convert.job import Job
from convert.journal import Journal
from convert.layerwise import Layer, forward
from convert.packing import PackedRows
from convert.partial_folder import JOURNAL_FILE
from convert.recipes import RECIPES
from convert.source import read_source
from gemma_mlx.config import read_config
from gemma_mlx.errors import CheckpointError, UsageError
from gemma_mlx.home import miniature_folder
from gemma_mlx.model.gemma4 import Gemma4
from gemma_mlx.weights import load_model
from tests.convert.converting import CALIBRATION, SHARD_BYTES
from tests.convert.small_source import write_source

FIRST_LAYER = "model.language_model.layers.0."


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return write_source(tmp_path / "source")


def convert(
    source: Path, destination: Path, calibration: Calibration | None = CALIBRATION, recipe: str = "4bit", **named: Any
) -> ConversionReport:
    return convert_source(
        read_source(source), destination, RECIPES[recipe], shard_bytes=SHARD_BYTES, calibration=calibration, **named
    )


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def loaded(folder: Path) -> Gemma4:
    return load_model(folder, read_config(folder), mx.float32)


@pytest.mark.parametrize("recipe", ["4bit", "4bit-g32", "6bit"])
def test_outputs_of_all_matrices_change_less_in_the_same_bytes(source: Path, tmp_path: Path, recipe: str) -> None:
    with_it = convert(source, tmp_path / "with", recipe=recipe)
    without = convert(source, tmp_path / "without", None, recipe)
    assert with_it.bits_per_weight == without.bits_per_weight
    for name, content in contents(tmp_path / "without").items():
        other = (tmp_path / "with" / name).read_bytes()
        assert (len(other) == len(content)) or name == "README.md"
        assert (other == content) == (name != "README.md" and not name.endswith(".safetensors"))
    for kind, tally in with_it.changes.items():
        assert without.changes[kind].output_sum == 0
        assert (tally.relative_error == without.changes[kind].relative_error) == (kind == "embed_tokens")
        if kind != "embed_tokens":
            assert 0 < tally.relative_output_error < tally.plain_relative_output_error


def test_a_layer_is_given_what_comes_out_of_the_packed_ones(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: dict[str, list[mx.array]] = {}
    pack = calibrated._pack

    def noting(layer: Layer, jobs: Any, states: Sequence[mx.array], *others: Any) -> list[tuple[Job, PackedRows]]:
        given[layer.prefix] = list(states)
        return pack(layer, jobs, states, *others)

    monkeypatch.setattr(calibrated, "_pack", noting)
    convert(source, tmp_path / "out")
    model = loaded(tmp_path / "out")
    states = [model.embed([*sample.prompt.ids, *sample.answer_ids], []) for sample in CALIBRATION.samples]
    layers = model.language_model.layers
    for index, layer in enumerate(layers):
        for state, one in zip(states, given[f"language_model.layers.{index}."], strict=True):
            assert mx.allclose(state, one, rtol=1e-4, atol=1e-4)
        model.language_model.layers = [layer]
        states = [forward(model.language_model, state, ()) for state in states]


def test_after_a_kill_the_bytes_are_those_of_an_unbroken_run(source: Path, tmp_path: Path) -> None:
    """A kill among the first layer's bytes, and one behind them."""
    whole, out = convert(source, tmp_path / "whole"), tmp_path / "out"
    tensor_bytes = sum(file.stat().st_size for file in (tmp_path / "whole").glob("*.safetensors"))
    noted = []
    for share in (0.1, 0.6):
        command = [
            sys.executable,
            "-m",
            "tests.convert.converting",
            source,
            out,
            int(share * tensor_bytes),
            "calibrated",
        ]
        assert subprocess.run(list(map(str, command)), check=False).returncode == -signal.SIGKILL
        noted.append(set(Journal(tmp_path / "out.partial" / JOURNAL_FILE).finished))
    assert not noted[0]
    assert {name for name in noted[1] if FIRST_LAYER in name} == noted[1] != set()
    report = convert(source, out)
    assert contents(out) == contents(tmp_path / "whole")
    assert replace(report, seconds=0) == replace(whole, seconds=0)


class Stopped(BaseException):
    """As Ctrl-C, but ours."""


def convert_and_stop(source: Path, destination: Path, at: int) -> None:
    """A conversion that ends when it tells of its progress for the `at`-th time."""
    told: list[int] = []

    def stop(done: int, total: int) -> None:
        told.append(done)
        if len(told) == at:
            raise Stopped

    with pytest.raises(Stopped):
        convert(source, destination, progress=stop)


def test_stopped_anywhere_it_goes_on_and_packs_no_layer_twice(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    convert(source, tmp_path / "whole")
    packed, pack = [], calibrated._pack

    def counting(layer: Layer, *others: Any) -> list[tuple[Job, PackedRows]]:
        packed.append(layer.prefix)
        return pack(layer, *others)

    monkeypatch.setattr(calibrated, "_pack", counting)
    for at in (3, 9):  # in the first layer, which has seven matrices, and in the second one
        convert_and_stop(source, tmp_path / "out", at)
    seen: list[tuple[int, int]] = []
    convert(source, tmp_path / "out", progress=lambda done, total: seen.append((done, total)))
    assert [prefix[-2] for prefix in packed] == ["0", "0", "1", "1"]
    assert seen == sorted(seen)
    assert seen[-1][0] == seen[-1][1]
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")


def test_a_layer_noted_in_part_is_packed_again(source: Path, tmp_path: Path) -> None:
    convert(source, tmp_path / "whole")
    convert_and_stop(source, tmp_path / "out", 9)
    journal = tmp_path / "out.partial" / JOURNAL_FILE
    os.truncate(journal, journal.stat().st_size - 5)
    assert 0 < len(Journal(journal).finished) < 7
    convert(source, tmp_path / "out")
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")


def test_lost_bytes_of_a_layer_are_noticed(source: Path, tmp_path: Path) -> None:
    convert_and_stop(source, tmp_path / "out", 9)
    for shard in (tmp_path / "out.partial").rglob("*.safetensors"):
        os.truncate(shard, 100)
    with pytest.raises(CheckpointError, match="has lost numbers that were written"):
        convert(source, tmp_path / "out")


def test_another_calibration_is_another_conversion(source: Path, tmp_path: Path) -> None:
    convert_and_stop(source, tmp_path / "out", 1)
    for other in (None, replace(CALIBRATION, samples=CALIBRATION.samples[:1]), replace(CALIBRATION, block_columns=128)):
        with pytest.raises(UsageError, match="an unfinished conversion of another calibration"):
            convert(source, tmp_path / "out", other)


def test_the_card_says_what_it_was_made_on(source: Path, tmp_path: Path) -> None:
    report = convert(source, tmp_path / "out")
    card = (tmp_path / "out" / "README.md").read_text(encoding="utf-8")
    assert f"with error feedback, on 2 prompts with 80 tokens (digest {CALIBRATION.digest})" in card
    tally = report.changes["down_proj"]
    assert f"| `down_proj` | {tally.relative_output_error:.4f} | {tally.plain_relative_output_error:.4f} |" in card
    assert card.count("`embed_tokens`") == 1


@pytest.mark.parametrize(
    ("recipe", "told"),
    [("bf16", "which rounds nothing"), ("qat", "whose codes are exact already")],
)
def test_recipes_without_use_for_it_are_refused(source: Path, tmp_path: Path, recipe: str, told: str) -> None:
    with pytest.raises(UsageError, match=f"no effect with --recipe {recipe}, {told}"):
        convert(source, tmp_path / "out", recipe=recipe)
    assert not list(tmp_path.glob("out*"))


def test_what_cannot_be_run_is_refused(source: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="a drafter's errors"):
        convert(miniature_folder() / "drafter", tmp_path / "out")
    convert(source, tmp_path / "packed", None)
    with pytest.raises(UsageError, match="packed already, and --calibration measures"):
        convert(tmp_path / "packed", tmp_path / "out", recipe="4bit-g32")


def test_prompts_are_taken_with_and_without_answers_and_not_without_end(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = [{"role": "user", "content": "What is 2 + 3?"}]
    with pytest.raises(UsageError, match=r"too few to round on, 1 prompt with .* tokens: give it 768"):
        calibration_of(miniature_folder(), [Exchange(asked, "")])
    monkeypatch.setattr(calibrated, "widest_block", lambda text: 1)
    without, answered = (
        calibration_of(miniature_folder(), [Exchange(asked, answer, "line 7")]) for answer in ("", "2 + 3 = 5")
    )
    assert without.samples[0].answer_ids == ()
    assert answered.tokens > without.tokens + 3
    assert without.digest != answered.digest
    monkeypatch.setattr(calibrated, "MOST_SAMPLE_TOKENS", without.tokens)
    with pytest.raises(UsageError, match=f"line 7 has {answered.tokens} tokens"):
        calibration_of(miniature_folder(), [Exchange(asked, "2 + 3 = 5", "line 7")])
    monkeypatch.setattr(calibrated, "MOST_TOKENS", 2 * without.tokens - 1)
    with pytest.raises(UsageError, match="leave some out"):
        calibration_of(miniature_folder(), 2 * [Exchange(asked, "", "line 7")])
