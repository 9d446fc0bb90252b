"""A model under an adapter answers as the trainer's own does: laid over it, packed or not, and fused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
import pytest
from numpy.typing import NDArray

from convert import source_tensor
from gemma_mlx.config import read_config
from gemma_mlx.model.gemma4 import Gemma4
from gemma_mlx.weights import load_model
from tests.adapters.trained import ADAPTERS, NAMES, fused, loaded, logits_of_trainer, packed_and_whole
from tests.golden.cases import TINY, Case

TOLERANCE = 1e-4


def logits(model: Gemma4, name: str, cases: dict[str, Case]) -> NDArray[Any]:
    case = cases["image_and_audio" if name.startswith("peft") else "text"]
    return np.array(model.logits(model(case.embeddings(model), model.make_caches(), case.images))[0].astype(mx.float32))


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The tiny model at 4 bit, and the same numbers unpacked."""
    return packed_and_whole(tmp_path_factory.mktemp("tiny"))


@pytest.mark.parametrize("name", NAMES)
def test_laid_over_the_model_it_gives_the_trainers_logits(
    name: str, folders: tuple[Path, Path], cases: dict[str, Case]
) -> None:
    wanted, folder = logits_of_trainer(name), folders[0] if name == "qlora" else TINY
    assert np.abs(logits(loaded(folder, ADAPTERS / name), name, cases) - wanted).max() < TOLERANCE
    without = load_model(folder, read_config(folder), mx.float32)
    assert np.abs(logits(without, name, cases) - wanted).max() > 0.3  # the adapter says something


@pytest.mark.parametrize("name", NAMES)
def test_fused_in_slices_it_gives_the_trainers_logits(
    name: str, folders: tuple[Path, Path], cases: dict[str, Case], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(source_tensor, "SLICE_NUMBERS", 1000)
    folder = folders[1] if name == "qlora" else TINY
    found = logits(fused(folder, ADAPTERS / name, tmp_path / "fused"), name, cases)
    assert np.abs(found - logits_of_trainer(name)).max() < TOLERANCE


@pytest.mark.parametrize("name", NAMES)
def test_over_packed_layers_it_is_as_over_their_unpacked_numbers(
    name: str, folders: tuple[Path, Path], cases: dict[str, Case], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gemma_mlx.adapters.layers.SLICE_NUMBERS", 1000)
    packed, whole = (logits(loaded(folder, ADAPTERS / name), name, cases) for folder in folders)
    assert np.abs(packed - whole).max() < TOLERANCE


@pytest.mark.parametrize("name", ["dora", "peft_rslora"])
def test_it_is_computed_in_the_models_type(name: str, cases: dict[str, Case]) -> None:
    model = loaded(TINY, ADAPTERS / name, mx.bfloat16)
    layer = model.language_model.layers[11].self_attn.q_proj
    assert layer(mx.zeros((1, 1, 64), mx.bfloat16)).dtype == mx.bfloat16
    lora = layer.lora if name == "dora" else layer
    assert lora.lora_a.dtype == lora.lora_b.dtype == mx.bfloat16
    assert np.abs(logits(model, name, cases) - logits_of_trainer(name)).mean() < 0.3  # CPU sums in bfloat16
