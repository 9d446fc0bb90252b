from __future__ import annotations

import json
from pathlib import Path

import pytest

from convert.conversion import convert_source, folder_bytes
from convert.measurement import CANDIDATES, Measurement
from convert.mixed import CARD_BYTES, mixed_recipe
from convert.recipes import RECIPES, Packing, Recipe
from convert.runnable import refuse_unrunnable
from convert.source import Source, read_source
from gemma_mlx.config import read_config
from gemma_mlx.errors import UsageError
from gemma_mlx.home import miniature_folder
from gemma_mlx.weights import load_model
from tests.convert.small_source import write_source

SENSITIVE = "language_model.layers.1.mlp.down_proj"


@pytest.fixture
def source(tmp_path: Path) -> Source:
    return read_source(write_source(tmp_path / "source"))


def _found(source: Source) -> Measurement:
    modules = [name.removesuffix(".weight") for name in source.tensors if RECIPES["4bit"].packing_of(name)]
    ratios = {packing: 4.0 ** (4 - packing.bits) * packing.group_size / 64 for packing in CANDIDATES}
    damages = {module: 1.0 if module == SENSITIVE else 1e-3 for module in modules}
    return Measurement(damages, dict.fromkeys(modules, ratios))


def _size(source: Source, packing: Packing) -> int:
    return folder_bytes(source, Recipe("uniform", packing))


def test_the_bytes_go_where_the_damage_is_and_never_over_the_target(source: Source, tmp_path: Path) -> None:
    target_bytes = _size(source, Packing(4, 64)) + CARD_BYTES + 4000
    recipe = mixed_recipe(source, _found(source), target_bytes)
    assert recipe == mixed_recipe(source, _found(source), target_bytes)
    report = convert_source(source, tmp_path / "out", recipe)
    assert report.bytes_written <= target_bytes
    assert sum(file.stat().st_size for file in (tmp_path / "out").iterdir()) <= target_bytes
    packing = recipe.packing_of(f"{SENSITIVE}.weight")
    assert packing is not None
    assert packing.bits >= 6
    assert recipe.packing_of("language_model.norm.weight") is None
    assert recipe.packing_of("embed_vision.embedding_projection.weight") is None


def test_config_names_each_packing_and_the_folder_loads(source: Source, tmp_path: Path) -> None:
    recipe = mixed_recipe(source, _found(source), _size(source, Packing(5, 64)) + CARD_BYTES)
    assert recipe.overrides
    assert recipe.packing not in recipe.overrides.values()
    convert_source(source, tmp_path / "out", recipe)
    entries = json.loads((tmp_path / "out/config.json").read_text(encoding="utf-8"))["quantization"]
    for module, packing in recipe.overrides.items():
        name = module.replace("language_model.", "language_model.model.")
        assert (entries[name]["bits"], entries[name]["group_size"]) == (packing.bits, packing.group_size)
    model = load_model(tmp_path / "out", read_config(tmp_path / "out"))
    down = model.language_model.layers[1].mlp.down_proj
    assert (down.bits, down.group_size) == (recipe.overrides[SENSITIVE].bits, recipe.overrides[SENSITIVE].group_size)


def test_a_target_out_of_reach_names_both_ends(source: Source, tmp_path: Path) -> None:
    for target_bytes in (1000, 10**9):
        with pytest.raises(UsageError, match=r"cannot be met: this model takes from 0\.\d+ to 0\.\d+ GB") as caught:
            mixed_recipe(source, _found(source), target_bytes)
        least, most = (float(word) for word in str(caught.value).split() if word.startswith("0."))
        for reachable_gb in (least, most):
            recipe = mixed_recipe(source, _found(source), int(reachable_gb * 1e9))
            assert folder_bytes(source, recipe) <= reachable_gb * 1e9


def test_a_drafter_is_refused() -> None:
    with pytest.raises(UsageError, match="a drafter"):
        refuse_unrunnable(read_source(miniature_folder() / "drafter"), "--recipe mixed")
