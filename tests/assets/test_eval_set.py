"""Held-out cases as folders, and the miniature on the lattice of a QAT release."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
import pytest

from assets.training import eval_set
from assets.training.held_out import held_out_case, scene_case
from assets.training.lattice import on_lattice, round_folder
from benchmarks.prompts import read_prompts
from benchmarks.quality_sets import read_sets
from convert.lattice import pack_lattice_rows
from convert.recipes import RECIPES
from gemma_mlx.home import miniature_folder


def spoken(rng: np.random.Generator, *rest: Any) -> tuple[str, np.ndarray, str]:
    """In place of espeak-ng."""
    return "12", rng.normal(size=4000).astype(np.float32) * 0.1, "nobody"


def test_sets_and_prompts_are_what_the_benchmark_reads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("assets.training.held_out.random_utterance", spoken)
    lines = [line for name in eval_set.SETS for line in eval_set.write_set(tmp_path, name, 2)]
    lines += eval_set.write_dialogues(tmp_path, 6)
    (tmp_path / "prompts.jsonl").write_text("\n".join(map(json.dumps, lines)), encoding="utf-8")

    sets = {one.name: one for one in read_sets([tmp_path / "sets"])}
    assert sets.keys() == eval_set.SETS.keys()
    assert [one.kind for one in sets.values()] == ["image", "image", "audio", "audio"]
    assert sets["readings"].prompt == "Read the text in this image."
    [first, second] = sets["captions"].expected.values()
    assert (first, second) == tuple(held_out_case(1, scene_case, number).answer for number in (0, 1))
    assert first != second
    assert [*sets["speech"].expected.values()] == ["1 2", "1 2"]

    prompts = read_prompts(tmp_path / "prompts.jsonl")
    assert len(prompts) == 14
    assert [prompt.answer for prompt in prompts[:2]] == [first, second]
    pictures = [*(tmp_path / "dialogues").iterdir()]
    contents = [message["content"] for prompt in prompts[8:] for message in prompt.messages]
    parts = [part for content in contents if isinstance(content, list) for part in content]
    named = [part["image"] for part in parts if part["type"] == "image"]
    assert sorted(named) == sorted(pictures)
    assert pictures


def test_rounded_weights_are_on_the_lattice_that_recipe_qat_finds(tmp_path: Path) -> None:
    round_folder(miniature_folder(), tmp_path / "rounded")
    own, rounded = (mx.load(str(folder / "model.safetensors")) for folder in (miniature_folder(), tmp_path / "rounded"))
    assert isinstance(own, dict)
    assert isinstance(rounded, dict)
    assert own.keys() == rounded.keys()
    changed = [name for name in own if not mx.array_equal(own[name], rounded[name])]
    assert "model.language_model.embed_tokens.weight" in changed
    assert {name.split(".")[-2] for name in changed} == {
        *("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj", "embed_tokens")
    }
    packing = RECIPES["qat-f32"].packing
    assert packing is not None
    packed = pack_lattice_rows(rounded["model.language_model.layers.0.self_attn.q_proj.weight"], packing)
    assert packed.tally.blocks_off_lattice == 0


def test_a_positive_extremum_is_clipped_to_level_7_and_zeros_stay() -> None:
    block = np.zeros((2, 32), np.float32)
    block[0, :4] = [0.8, -0.8, 0.31, -0.04]
    found = np.array(on_lattice(mx.array(block)).astype(mx.float32))
    assert found[0, :4] == pytest.approx([0.7, -0.8, 0.3, 0.0], abs=2e-3)
    assert not found[1].any()
