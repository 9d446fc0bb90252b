"""An adapter fused into a conversion: what is written, gone on with, and refused."""

from __future__ import annotations

import json
from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest

from convert import fuse as fusing
from convert.conversion import convert_source
from convert.fuse import fuse
from convert.partial_folder import partial_path
from convert.recipes import recipe_named
from convert.source import Source, read_source
from gemma_mlx.checkpoint import INDEX_FILE
from gemma_mlx.config import read_config
from gemma_mlx.errors import CheckpointError, UsageError
from gemma_mlx.home import miniature_folder
from gemma_mlx.weights import load_model, read_tensors
from tests.adapters.miniature import write_adapter
from tests.adapters.trained import ADAPTERS, loaded
from tests.convert.lattice_source import trained_tensors
from tests.convert.small_source import HIDDEN, INNER, write_source
from tests.golden.cases import TINY

IDS = list(range(30, 90))


@pytest.fixture
def adapter(tmp_path: Path) -> Path:
    return write_adapter(tmp_path / "adapter")


def fused_miniature(adapter: Path) -> Source:
    return fuse(read_source(miniature_folder()), adapter)


def weights_file(folder: Path) -> Path:
    [file] = folder.glob("*.safetensors")
    return file


def test_the_written_model_is_the_loaded_one_but_for_the_rounding_to_bfloat16(tmp_path: Path, adapter: Path) -> None:
    convert_source(fused_miniature(adapter), tmp_path / "fused", recipe_named("bf16"))
    models = {
        "fused": load_model(tmp_path / "fused", read_config(tmp_path / "fused"), mx.float32),
        "loaded": loaded(miniature_folder(), adapter),
        "plain": load_model(miniature_folder(), read_config(miniature_folder()), mx.float32),
    }
    logits = {
        name: np.array(model.logits(model(model.embed(IDS, []), model.make_caches()))) for name, model in models.items()
    }
    rounding = np.abs(logits["fused"] - logits["loaded"]).mean()
    assert rounding < 0.02 * np.abs(logits["plain"] - logits["loaded"]).mean()
    exact = models["loaded"].language_model.layers[2].mlp.up_proj
    written = models["fused"].language_model.layers[2].mlp.up_proj.weight
    wanted = exact.linear.weight + exact.scale * (exact.lora_a @ exact.lora_b).T
    assert mx.abs(written - wanted).max() <= 2.0**-8 * mx.abs(wanted).max()


@pytest.mark.parametrize("recipe", ["4bit", "4bit-g32", "6bit", "8bit", "bf16"])
def test_every_recipe_takes_it_and_what_is_written_names_it(tmp_path: Path, adapter: Path, recipe: str) -> None:
    source, chosen = fused_miniature(adapter), recipe_named(recipe)
    assert source.adapter is not None
    report = convert_source(source, tmp_path / "fused", chosen)
    plain = convert_source(read_source(miniature_folder()), tmp_path / "plain", chosen)
    card = (tmp_path / "fused" / "README.md").read_text(encoding="utf-8")
    assert f"with the adapter `adapter` (sha256 {source.adapter.digest}) in it" in card
    assert "adapter" not in (tmp_path / "plain" / "README.md").read_text(encoding="utf-8")
    metadata = json.loads((tmp_path / "fused" / INDEX_FILE).read_text(encoding="utf-8"))["metadata"]
    assert metadata["adapter"] == "adapter"
    assert report.bits_per_weight == plain.bits_per_weight
    fused_tensors, plain_tensors = (read_tensors(weights_file(tmp_path / name)) for name in ("fused", "plain"))
    differ = {name for name, array in plain_tensors.items() if not mx.array_equal(array, fused_tensors[name])}
    assert {name.split(".")[-2] for name in differ} == {
        *(f"{name}_proj" for name in ("q", "k", "v", "o", "gate", "up", "down"))
    }


def test_an_unfinished_conversion_is_not_gone_on_with_under_another_adapter(
    tmp_path: Path, adapter: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(done: int, total: int) -> None:
        if done > total // 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        convert_source(fused_miniature(adapter), tmp_path / "out", recipe_named("4bit"), progress=interrupted)
    assert partial_path(tmp_path / "out").is_dir()
    for other in (fused_miniature(write_adapter(tmp_path / "other", seed=1)), read_source(miniature_folder())):
        with pytest.raises(UsageError, match="adapter"):
            convert_source(other, tmp_path / "out", recipe_named("4bit"))
    convert_source(fused_miniature(adapter), tmp_path / "out", recipe_named("4bit"))
    convert_source(fused_miniature(adapter), tmp_path / "at-once", recipe_named("4bit"))
    gone_on, at_once = (weights_file(tmp_path / name).read_bytes() for name in ("out", "at-once"))
    assert gone_on == at_once


def test_a_lattice_that_the_adapter_leaves_is_refused_at_once_however_late_it_does(tmp_path: Path) -> None:
    """mlx-lm trains the last layers by default; a look at the first numbers would find them on the lattice."""
    release = write_source(tmp_path / "release", trained_tensors())
    module = "language_model.model.layers.1.mlp.up_proj"
    tensors = {f"{module}.lora_a": mx.ones((HIDDEN, 2)), f"{module}.lora_b": mx.ones((2, INNER))}
    (tmp_path / "adapter").mkdir()
    mx.save_safetensors(str(tmp_path / "adapter/adapters.safetensors"), tensors)
    config = {"fine_tune_type": "lora", "lora_parameters": {"rank": 2, "scale": 1.0}}
    (tmp_path / "adapter/adapter_config.json").write_text(json.dumps(config))
    source = fuse(read_source(release), tmp_path / "adapter")
    with pytest.raises(CheckpointError, match="the adapter adapter takes the weights off their 4-bit lattice"):
        convert_source(source, tmp_path / "out", recipe_named("qat"))
    assert {path.name for path in tmp_path.iterdir()} == {"release", "adapter"}
    report = convert_source(source, tmp_path / "out", recipe_named("qat", round_off_lattice=True))
    assert report.off_lattice.split(" (")[0] == "model.language_model.layers.1.mlp.up_proj.weight"
    assert " and " not in report.off_lattice


def test_a_drafter_takes_no_adapter(adapter: Path) -> None:
    with pytest.raises(UsageError, match="is a drafter"):
        fuse(read_source(miniature_folder() / "drafter"), adapter)


def test_an_adapter_of_another_model_is_refused_before_anything_is_written() -> None:
    with pytest.raises(CheckpointError, match="of another model"):
        fuse(read_source(miniature_folder()), ADAPTERS / "lora")


def test_a_row_that_dora_cannot_scale_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = fuse(read_source(TINY), ADAPTERS / "dora")
    name = "language_model.layers.11.mlp.up_proj.weight"
    fused = source.tensors[name]
    assert isinstance(fused, fusing.FusedTensor)
    monkeypatch.setattr(fusing.LowRank, "added_to", lambda self, rows, first: mx.zeros(rows.shape))
    with pytest.raises(CheckpointError, match="not finite with the adapter dora"):
        list(fused.slices())
