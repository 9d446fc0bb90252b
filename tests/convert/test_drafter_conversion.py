"""Drafters through the converter: what is packed, what stays, and that the result drafts."""

from __future__ import annotations

import json
from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest
from mlx.utils import tree_flatten

from convert.conversion import convert_checkpoint
from convert.packed_source import Repacking
from convert.recipes import RECIPES, recipe_named
from convert.source import converted_bytes, model_config
from gemma_mlx.checkpoint import read_headers
from gemma_mlx.drafter_config import parse_drafter_config
from gemma_mlx.drafter_weights import load_drafter
from gemma_mlx.errors import CheckpointError
from gemma_mlx.model.drafter import Drafter
from gemma_mlx.model.gemma4 import Gemma4
from tests.drafters import drafter_data, target_config

WHOLE = ("norm", "layer_scalar", "centroids", "token_ordering")


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A drafter with an ordered head, random, in the released format; it has no tokenizer."""
    folder = tmp_path / "source"
    folder.mkdir()
    data = drafter_data(target_config(), use_ordered_embeddings=True)
    (folder / "config.json").write_text(json.dumps(data))
    drafter, tensors = Drafter(parse_drafter_config(data)), {}
    for seed, (name, array) in enumerate(tree_flatten(drafter.parameters())):
        stored = name if name.startswith(("pre_", "post_", "masked_")) else f"model.{name}"
        if name.endswith("token_ordering"):
            tensors[stored] = array[::-1].astype(mx.int64)
        else:
            tensors[stored] = (0.1 * mx.random.normal(array.shape, key=mx.random.key(seed))).astype(mx.bfloat16)
    mx.save_safetensors(str(folder / "model.safetensors"), tensors)
    return folder


def logits_of(folder: Path) -> np.ndarray:
    """What the drafter in `folder` drafts for a target with the first weights that MLX gives it."""
    mx.random.seed(3)
    config = target_config()
    target = Gemma4(config)
    drafter, caches = load_drafter(folder, folder, config, target), target.make_caches()
    hidden = target(target.embed([2, 3, 4, 5], []), caches)
    return np.array(drafter.step(mx.array([[6]]), hidden[:, -1:], caches)[0])


@pytest.mark.parametrize("recipe", [name for name in RECIPES if not name.startswith("qat")])
def test_converted_drafter_drafts_and_keeps_its_spelling(source: Path, tmp_path: Path, recipe: str) -> None:
    report = convert_checkpoint(source, tmp_path / "out", recipe)
    assert report.is_drafter
    before, after = read_headers(source), read_headers(tmp_path / "out")
    assert {info.name for info in before.values()} <= {info.name for info in after.values()}
    for name, info in after.items():
        if name.endswith(".weight") and not any(word in name for word in WHOLE) and recipe != "bf16":
            assert info.dtype == "U32", name
        elif not name.endswith((".scales", ".biases")):
            assert (info.dtype, info.shape) == (before[name].dtype, before[name].shape)
    wanted, found = logits_of(source), logits_of(tmp_path / "out")
    scored = (wanted > wanted.min()) & (found > found.min())  # another centroid may be among the likeliest
    error = np.abs(found - wanted)[scored].max() / np.abs(wanted[scored]).max()
    assert error < {"bf16": 1e-6, "8bit": 0.05, "6bit": 0.15, "4bit": 0.4, "4bit-g32": 0.4}[recipe]


def test_its_size_is_known_beforehand(source: Path, tmp_path: Path) -> None:
    convert_checkpoint(source, tmp_path / "out", "4bit")
    written = sum(info.nbytes for info in read_headers(tmp_path / "out").values())
    assert converted_bytes(model_config(source), recipe_named("4bit")) == written


def test_the_order_of_tokens_survives(source: Path, tmp_path: Path) -> None:
    convert_checkpoint(source, tmp_path / "out", "4bit")
    info = read_headers(tmp_path / "out")["masked_embedding.token_ordering"]
    tensors = mx.load(str(info.file))
    assert isinstance(tensors, dict)
    assert tensors[info.name].tolist() == list(range(255, -1, -1))


def test_a_packed_drafter_is_copied_or_packed_again(source: Path, tmp_path: Path) -> None:
    convert_checkpoint(source, tmp_path / "eight", "8bit")
    copied = convert_checkpoint(tmp_path / "eight", tmp_path / "copied", "8bit")
    four = convert_checkpoint(tmp_path / "eight", tmp_path / "four", "4bit")
    assert copied.is_drafter
    assert copied.repacking is not None
    assert four.repacking == Repacking(repacked=copied.repacking.copied)
    assert np.array_equal(logits_of(tmp_path / "copied"), logits_of(tmp_path / "eight"))
    assert logits_of(tmp_path / "four").shape == logits_of(source).shape


def test_a_drafter_that_is_not_whole_is_refused(source: Path, tmp_path: Path) -> None:
    data = json.loads((source / "config.json").read_text())
    (source / "config.json").write_text(json.dumps({**data, "use_ordered_embeddings": False}))
    with pytest.raises(CheckpointError, match="that a drafter of Gemma 4 12B does not have"):
        convert_checkpoint(source, tmp_path / "other", "4bit")
