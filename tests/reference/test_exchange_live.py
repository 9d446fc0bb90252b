"""Folders are exchanged with mlx-vlm and mlx-lm: each reads what the other writes and gives the same logits.

Compared in float32, on text, sounds and pictures. mlx-vlm 0.7.10 masks pictures otherwise than Google: a call of its
model without token types is causal throughout. So pictures are compared under causal masks on both sides.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
import pytest
from numpy.typing import NDArray

pytest.importorskip("mlx_vlm")
pytest.importorskip("mlx_lm")

from mlx_lm.utils import load_model as load_in_mlx_lm
from mlx_vlm import generate as generate_in_mlx_vlm
from mlx_vlm import load as load_all_in_mlx_vlm
from mlx_vlm.convert import convert as convert_in_mlx_vlm
from mlx_vlm.utils import load_model as load_in_mlx_vlm

import gemma_mlx
from assets.training.lattice import round_folder
from convert.conversion import convert_checkpoint, convert_source
from convert.recipes import RECIPES, Packing, Recipe
from convert.source import read_source
from gemma_mlx.config import read_config
from gemma_mlx.decoding.sampling import Sampling
from gemma_mlx.errors import CheckpointError
from gemma_mlx.home import miniature_folder
from gemma_mlx.weights import load_model

pytestmark = pytest.mark.reference

TOLERANCE = 1e-3
FRAMES, PATCHES, AT = 7, 6, 5
THEIR_OPTIONS: dict[str, dict[str, Any]] = {
    "whole": {},
    "4bit": {"quantize": True},
    "8bit": {"quantize": True, "q_bits": 8},
    "6bit": {"quantize": True, "q_bits": 6},
    "4bit-g32": {"quantize": True, "q_group_size": 32},
    "mixed_4_6": {"quantize": True, "quant_predicate": "mixed_4_6"},
    "mixed_3_4": {"quantize": True, "quant_predicate": "mixed_3_4"},
    "mxfp4": {"quantize": True, "q_mode": "mxfp4", "q_group_size": None, "q_bits": None},
    "nvfp4": {"quantize": True, "q_mode": "nvfp4", "q_group_size": None, "q_bits": None},
    "mxfp8": {"quantize": True, "q_mode": "mxfp8", "q_group_size": None, "q_bits": None},
}
MIXED = Recipe(
    "mixed",
    Packing(4, 64),
    {
        "language_model.embed_tokens": Packing(8, 64),
        "language_model.layers.0.mlp.down_proj": Packing(8, 64),
        "language_model.layers.5.self_attn.o_proj": Packing(8, 64),
    },
)
OUR_RECIPES = [*RECIPES.values(), MIXED]
Logits = dict[str, NDArray[np.float32]]


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The miniature without its drafter. mlx-lm looks for the size of the vocabulary where the 12B need not have it."""
    folder = tmp_path_factory.mktemp("source") / "miniature"
    shutil.copytree(miniature_folder(), folder, ignore=shutil.ignore_patterns("drafter"))
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"vocab_size": config["text_config"]["vocab_size"]}))
    return folder


@pytest.fixture(scope="module")
def by_mlx_vlm(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The source as mlx-vlm converts it with the options of that name, made once."""

    def converted(name: str) -> Path:
        folder = made / name
        if not folder.exists():
            convert_in_mlx_vlm(str(source), str(folder), **THEIR_OPTIONS[name])
        return folder

    made = tmp_path_factory.mktemp("theirs")
    return converted


def text_ids(count: int) -> list[int]:
    return np.random.default_rng(0).integers(30, 1000, count).tolist()


def media() -> tuple[mx.array, mx.array, mx.array]:
    """Frames of a sound, patches of a picture and their places."""
    random = np.random.default_rng(1)
    places = [[x, y] for y in range(2) for x in range(PATCHES // 2)]
    return (
        mx.array(random.normal(size=(FRAMES, 640)).astype(np.float32)),
        mx.array(random.uniform(size=(PATCHES, 6912)).astype(np.float32)),
        mx.array(places),
    )


def prompts(folder: Path) -> dict[str, list[int]]:
    config, ids = read_config(folder), text_ids(40)
    return {
        "text": text_ids(300),  # longer than the miniature's window
        "sound": [*ids[:AT], *[config.audio_token_id] * FRAMES, *ids[AT:]],
        "picture": [*ids[:AT], *[config.image_token_id] * PATCHES, *ids[AT:]],
    }


def our_logits(folder: Path) -> Logits:
    config = read_config(folder)
    assert config.unknown_keys == ()
    model = load_model(folder, config, mx.float32)
    frames, patches, places = media()
    soft = {
        "text": [],
        "sound": [(AT, model.embed_sound(frames))],
        "picture": [(AT, model.embed_image(patches, places))],
    }
    return {
        name: np.array(model.logits(model(model.embed(ids, soft[name]), model.make_caches()))[0])
        for name, ids in prompts(folder).items()
    }


def logits_of_mlx_vlm(folder: Path) -> Logits:
    model = load_in_mlx_vlm(folder)
    model.set_dtype(mx.float32)
    frames, patches, places = media()
    inputs: dict[str, dict[str, mx.array]] = {
        "text": {},
        "sound": {"input_features": frames[None], "input_features_mask": mx.ones((1, FRAMES))},
        "picture": {"pixel_values": patches[None], "image_position_ids": places[None]},
    }
    found = {}
    for name, ids in prompts(folder).items():
        # In float32 as well: of a table in a float mode it takes rows in bfloat16, and scales them there.
        rows = model.language_model.model.embed_tokens(mx.array([ids])).astype(mx.float32)
        rows = rows * model.language_model.model.embed_scale
        answer = model(mx.array([ids]), cache=model.make_cache(), inputs_embeds=rows, **inputs[name])
        found[name] = np.array(answer.logits[0])
    return found


def assert_same(found: Logits, wanted: Logits) -> None:
    assert found.keys() == wanted.keys()
    for name in wanted:
        assert np.abs(wanted[name]).max() > 5
        assert np.abs(found[name] - wanted[name]).max() < TOLERANCE, name


@pytest.mark.parametrize("name", THEIR_OPTIONS)
def test_what_mlx_vlm_writes_is_read_as_it_is(by_mlx_vlm: Callable[[str], Path], name: str) -> None:
    folder = by_mlx_vlm(name)
    assert_same(our_logits(folder), logits_of_mlx_vlm(folder))


def test_float16_of_mlx_vlm_is_refused_by_name(source: Path, tmp_path: Path) -> None:
    convert_in_mlx_vlm(str(source), str(tmp_path / "half"), quantize=True, dtype="float16")
    with pytest.raises(CheckpointError, match=r"holds float16 .* use the bfloat16 release"):
        load_model(tmp_path / "half", read_config(tmp_path / "half"))


@pytest.mark.parametrize("recipe", OUR_RECIPES, ids=lambda recipe: recipe.name)
def test_what_we_write_is_read_by_mlx_vlm_and_mlx_lm(source: Path, tmp_path: Path, recipe: Recipe) -> None:
    if recipe.packing is not None and recipe.packing.on_lattice:
        round_folder(source, tmp_path / "trained for 4 bits")
        source = tmp_path / "trained for 4 bits"
    convert_source(read_source(source), tmp_path / "ours", recipe)
    ours = our_logits(tmp_path / "ours")
    assert_same(logits_of_mlx_vlm(tmp_path / "ours"), ours)
    model, _ = load_in_mlx_lm(tmp_path / "ours")
    model.set_dtype(mx.float32)
    logits = model(mx.array([prompts(source)["text"]]), cache=model.make_cache())[0]
    assert_same({"text": np.array(logits)}, {"text": ours["text"]})


def test_mlx_vlm_answers_from_our_folder_alone(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    convert_checkpoint(source, tmp_path / "ours", "8bit")
    model, processor = load_all_in_mlx_vlm(str(tmp_path / "ours"))
    model.set_dtype(mx.float32)
    message = {"role": "user", "content": [{"type": "text", "text": "Hello"}]}
    prompt = processor.apply_chat_template([message], tokenize=False, add_generation_prompt=True)
    theirs = generate_in_mlx_vlm(model, processor, prompt, max_tokens=12, temperature=0.0, verbose=False)
    ours = gemma_mlx.load(tmp_path / "ours", draft="off").reply([message], max_tokens=12, sampling=Sampling(0.0))
    assert theirs.text.strip() == ours.text.strip() != ""


@pytest.mark.parametrize("name", ["8bit", "mixed_4_6", "nvfp4"])
def test_what_mlx_vlm_packed_is_packed_again_for_both(
    by_mlx_vlm: Callable[[str], Path], tmp_path: Path, name: str
) -> None:
    report = convert_checkpoint(by_mlx_vlm(name), tmp_path / "ours", "4bit")
    assert report.repacking is not None
    assert (report.repacking.copied > 0) == (name == "mixed_4_6")
    assert_same(logits_of_mlx_vlm(tmp_path / "ours"), our_logits(tmp_path / "ours"))
