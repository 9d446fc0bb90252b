"""Loading a drafter is as strict as loading the model."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import mlx.core as mx
import pytest

from gemma_mlx.config import Config
from gemma_mlx.drafter_weights import load_drafter
from gemma_mlx.errors import CheckpointError, GemmaWarning, UsageError
from gemma_mlx.home import find_drafter
from gemma_mlx.model.gemma4 import Gemma4
from tests.golden.cases import HERE, TINY


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A copy of the stored drafter with an ordered head."""
    return Path(shutil.copytree(HERE / "drafters" / "ordered", tmp_path / "drafter"))


def change_tensors(folder: Path, changed: dict[str, mx.array | None]) -> None:
    """Writes the folder's tensors again, with those `changed`; None takes one away."""
    file = folder / "model.safetensors"
    tensors = mx.load(str(file))
    assert isinstance(tensors, dict)
    mx.eval(list(tensors.values()))
    kept = {name: array for name, array in (tensors | changed).items() if array is not None}
    mx.save_safetensors(str(file), kept)


def refusal(folder: Path, config: Config, model: Gemma4, target_folder: Path = TINY) -> str:
    with pytest.raises(CheckpointError) as caught:
        load_drafter(folder, target_folder, config, model)
    assert "\n" not in str(caught.value)
    return str(caught.value)


ORDERING = "masked_embedding.token_ordering"


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"model.norm.weight": None}, "lacks 1 tensors, first norm.weight"),
        ({"lm_head.weight": mx.zeros((128, 32), mx.bfloat16)}, "that a drafter of Gemma 4 12B does not have"),
        ({"model.norm.weight": mx.zeros((31,), mx.bfloat16)}, "shape [31]"),
        ({"post_projection.weight": mx.full((64, 32), float("nan"), mx.bfloat16)}, "NaN or infinity"),
        ({ORDERING: mx.arange(128).astype(mx.bfloat16)}, "stored as BF16"),
        ({"model.norm.weight": mx.ones((32,), mx.int64)}, "stored as I64"),
        ({ORDERING: mx.zeros((128,), mx.int64)}, "does not name every token once"),
        ({ORDERING: mx.arange(1, 129, dtype=mx.int64)}, "does not name every token once"),
    ],
)
def test_wrong_tensors_are_refused(
    folder: Path, tiny_config: Config, tiny_model: Gemma4, changed: dict[str, mx.array | None], told: str
) -> None:
    change_tensors(folder, changed)
    assert told in refusal(folder, tiny_config, tiny_model)


def test_a_model_is_no_drafter_and_a_drafter_no_model(tiny_config: Config, tiny_model: Gemma4) -> None:
    assert "not 'gemma4_unified_assistant'" in refusal(TINY, tiny_config, tiny_model)


def test_a_drafter_of_another_model_is_refused_before_its_weights_are_read(
    folder: Path, tiny_config: Config, tiny_model: Gemma4
) -> None:
    data = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**data, "backbone_hidden_size": 3840}))
    (folder / "model.safetensors").unlink()
    assert "hidden states is 3840, the model's 64" in refusal(folder, tiny_config, tiny_model)


def test_a_drafter_with_another_chat_template_is_refused(
    folder: Path, tmp_path: Path, tiny_config: Config, tiny_model: Gemma4
) -> None:
    target_folder = tmp_path / "target"
    target_folder.mkdir()
    for place in (folder, target_folder):
        (place / "chat_template.jinja").write_text("one")
    load_drafter(folder, target_folder, tiny_config, tiny_model)
    (target_folder / "chat_template.jinja").write_text("another")
    assert "not the chat template" in refusal(folder, tiny_config, tiny_model, target_folder)


def test_an_unknown_key_of_its_config_is_warned_of(folder: Path, tiny_config: Config, tiny_model: Gemma4) -> None:
    data = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**data, "surprise": 1}))
    with pytest.warns(GemmaWarning, match="surprise"):
        load_drafter(folder, TINY, tiny_config, tiny_model)


def test_the_drafter_beside_the_model_is_found_and_a_named_one_comes_first(folder: Path, tmp_path: Path) -> None:
    assert find_drafter(tmp_path) == folder
    other = tmp_path / "other"
    other.mkdir()
    assert find_drafter(tmp_path, other) == other
    assert find_drafter(other) is None
    with pytest.raises(UsageError, match="no drafter folder"):
        find_drafter(tmp_path, tmp_path / "missing")
