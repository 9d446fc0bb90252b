"""A folder becomes exactly the model it describes, or one line says why not."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest
from mlx.utils import tree_flatten

from gemma_mlx.config import Config, read_config
from gemma_mlx.errors import CheckpointError
from gemma_mlx.home import miniature_folder
from gemma_mlx.names import canonical_name, mlx_name
from gemma_mlx.weights import load_model
from tests.golden.cases import TINY, Case

Tensors = dict[str, mx.array]
UP = "model.language_model.layers.3.mlp.up_proj.weight"
PACKED_KINDS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj", "embed_tokens")


@pytest.fixture
def stored() -> Tensors:
    found = mx.load(str(TINY / "model.safetensors"))
    assert isinstance(found, dict)
    return found


@pytest.fixture
def save(tmp_path: Path) -> Callable[[Tensors], Path]:
    def saved(tensors: Tensors) -> Path:
        shutil.copy(TINY / "config.json", tmp_path)
        mx.save_safetensors(str(tmp_path / "model.safetensors"), tensors)
        return tmp_path

    return saved


def refusal(folder: Path, config: Config) -> str:
    with pytest.raises(CheckpointError) as caught:
        load_model(folder, config)
    message = str(caught.value)
    assert "\n" not in message
    return message


def pack(stored: Tensors, bits: int, group_size: int) -> tuple[Tensors, Tensors]:
    """`stored` as an MLX folder holds it, its linears packed; and the same numbers unpacked, in released names."""
    packed, whole = dict[str, mx.array](), dict[str, mx.array]()
    for name, array in stored.items():
        mlx = mlx_name(canonical_name(name))
        whole[name], packed[mlx] = array, array
        if name.split(".")[-2] in PACKED_KINDS:
            weight, scales, biases = mx.quantize(array, group_size=group_size, bits=bits)
            module = mlx.removesuffix(".weight")
            packed |= {mlx: weight, f"{module}.scales": scales, f"{module}.biases": biases}
            parts = (part.astype(mx.float32) for part in (scales, biases))
            whole[name] = mx.dequantize(weight, *parts, group_size=group_size, bits=bits)
    return packed, whole


def logits(folder: Path, config: Config, case: Case) -> mx.array:
    model = load_model(folder, config, mx.float32)
    return model.logits(model(case.embeddings(model), model.make_caches(), case.images))[0]


def test_every_parameter_is_loaded_in_the_computing_type(tiny_config: Config) -> None:
    for dtype in (mx.float32, mx.bfloat16):
        model = load_model(TINY, tiny_config, dtype)
        folded = {f"language_model.layers.{layer}.self_attn.q_norm.weight" for layer in (5, 11)}
        for name, array in dict(tree_flatten(model.parameters())).items():
            assert array.dtype == (mx.float32 if name in folded else dtype), name


@pytest.mark.parametrize(("bits", "group_size"), [(4, 32), (8, 32)])
def test_packed_folder_is_the_model_of_its_unpacked_numbers(
    stored: Tensors, save: Callable[[Tensors], Path], cases: dict[str, Case], bits: int, group_size: int
) -> None:
    packed, whole = pack(stored, bits, group_size)
    folder = save(whole)
    wanted = logits(folder, read_config(folder), cases["image_and_audio"])
    data = json.loads((folder / "config.json").read_text())
    mx.save_safetensors(str(folder / "model.safetensors"), packed)
    data["quantization"] = {"bits": bits, "group_size": group_size}
    (folder / "config.json").write_text(json.dumps(data))
    found = logits(folder, read_config(folder), cases["image_and_audio"])
    assert mx.abs(found - wanted).max().item() < 1e-4


@pytest.mark.parametrize(("mode", "bits", "group_size"), [("mxfp4", 4, 32), ("nvfp4", 4, 16), ("mxfp8", 8, 32)])
def test_float_modes_are_the_model_of_their_unpacked_numbers(
    stored: Tensors, save: Callable[[Tensors], Path], cases: dict[str, Case], mode: str, bits: int, group_size: int
) -> None:
    packed, whole = dict(stored), dict(stored)
    for name in (name for name in stored if name.split(".")[-2] in PACKED_KINDS):
        scales = name.removesuffix("weight") + "scales"
        packed[name], packed[scales] = mx.quantize(stored[name], mode=mode)
        whole[name] = mx.dequantize(packed[name], packed[scales], mode=mode, dtype=mx.float32)
    folder = save(whole)
    wanted = logits(folder, read_config(folder), cases["image_and_audio"])
    data = json.loads((folder / "config.json").read_text())
    mx.save_safetensors(str(folder / "model.safetensors"), packed)
    data["quantization"] = {"bits": bits, "group_size": group_size, "mode": mode}
    (folder / "config.json").write_text(json.dumps(data))
    found = logits(folder, read_config(folder), cases["image_and_audio"])
    assert mx.abs(found - wanted).max().item() < 1e-4
    packed[UP.replace("weight", "scales")] = mx.zeros((1,))
    mx.save_safetensors(str(folder / "model.safetensors"), packed)
    assert "is stored as F32; download it again" in refusal(folder, read_config(folder))


def test_each_linear_may_be_packed_its_own_way(
    stored: Tensors, save: Callable[[Tensors], Path], cases: dict[str, Case]
) -> None:
    packed, whole = pack(stored, 4, 32)
    eight, eight_whole = pack({UP: stored[UP]}, 8, 32)
    folder = save(whole | eight_whole)
    wanted = logits(folder, read_config(folder), cases["text"])
    mx.save_safetensors(str(folder / "model.safetensors"), packed | eight)
    data = json.loads((folder / "config.json").read_text())
    module = mlx_name(canonical_name(UP)).removesuffix(".weight")
    data["quantization"] = {"bits": 4, "group_size": 32, module: {"bits": 8, "group_size": 32}}
    (folder / "config.json").write_text(json.dumps(data))
    found = logits(folder, read_config(folder), cases["text"])
    assert mx.abs(found - wanted).max().item() < 1e-4


def test_packed_tensors_without_a_recipe_are_refused(
    stored: Tensors, save: Callable[[Tensors], Path], tiny_config: Config
) -> None:
    folder = save(pack(stored, 4, 32)[0])
    assert "is packed but config.json has no quantization" in refusal(folder, tiny_config)


def test_missing_tensor_is_named(stored: Tensors, save: Callable[[Tensors], Path], tiny_config: Config) -> None:
    del stored[UP]
    assert f"lacks 1 tensors, first {canonical_name(UP)}" in refusal(save(stored), tiny_config)


@pytest.mark.parametrize(
    "name",
    [
        "lm_head.weight",
        "model.language_model.layers.12.layer_scalar",
        "model.language_model.layers.5.self_attn.v_proj.weight",
        "model.language_model.layers.0.mlp.up_proj.lora_A.weight",
        "junk",
    ],
)
def test_tensor_too_many_is_named(
    stored: Tensors, save: Callable[[Tensors], Path], tiny_config: Config, name: str
) -> None:
    folder = save(stored | {name: mx.zeros((2, 2))})
    assert f"holds 1 tensors that Gemma 4 12B does not have, first {name}" in refusal(folder, tiny_config)


def test_wrong_shape_is_told(stored: Tensors, save: Callable[[Tensors], Path], tiny_config: Config) -> None:
    stored[UP] = stored[UP].T
    message = refusal(save(stored), tiny_config)
    assert f"{UP} in" in message
    assert "has shape [64, 96], but config.json asks for [96, 64]" in message


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("name", [UP, "model.language_model.norm.weight", "model.vision_embedder.pos_embedding"])
def test_weight_that_is_no_number_is_refused(
    stored: Tensors, save: Callable[[Tensors], Path], tiny_config: Config, name: str, value: float
) -> None:
    flat = stored[name].reshape(-1)
    flat[3] = value
    stored[name] = flat.reshape(stored[name].shape)
    assert f"{canonical_name(name)} in" in refusal(save(stored), tiny_config)


def test_float16_is_refused(stored: Tensors, save: Callable[[Tensors], Path], tiny_config: Config) -> None:
    stored[UP] = stored[UP].astype(mx.float16)
    assert f"holds float16 ({UP})" in refusal(save(stored), tiny_config)
    with pytest.raises(CheckpointError, match="overflows in"):
        load_model(TINY, tiny_config, mx.float16)


def test_config_of_another_size_is_refused(tiny_config: Config) -> None:
    text = dataclasses.replace(tiny_config.text, num_hidden_layers=6, layer_types=tiny_config.text.layer_types[:6])
    assert "tensors that Gemma 4 12B does not have" in refusal(TINY, dataclasses.replace(tiny_config, text=text))


def test_norms_fold_once(tiny_config: Config, stored: Tensors) -> None:
    """On the shared dims the query's norm holds the product of both, on the rotated ones its own alone."""
    attention = load_model(TINY, tiny_config, mx.float32).language_model.layers[5].self_attn
    q, k = (
        np.array(stored[f"model.language_model.layers.5.self_attn.{n}_norm.weight"].astype(mx.float32)) for n in "qk"
    )
    rotated = [0, 1, 2, 3, 16, 17, 18, 19]
    shared = [dim for dim in range(32) if dim not in rotated]
    found = np.array(attention.q_norm.weight)
    assert np.allclose(found[:8], q[rotated])
    assert np.allclose(found[8:], (q * k)[shared])


def test_a_tensor_of_the_wrong_type_is_told(
    stored: Tensors, save: Callable[[Tensors], Path], tiny_config: Config
) -> None:
    stored[UP] = mx.zeros(stored[UP].shape, dtype=mx.uint32)
    assert "is stored as U32" in refusal(save(stored), tiny_config)


def test_packed_embedders_of_other_programs_are_read(tmp_path: Path) -> None:
    source = miniature_folder()
    plain = load_model(source, read_config(source))
    tensors = mx.load(str(source / "model.safetensors"))
    assert isinstance(tensors, dict)
    for module in (
        "vision_embedder.patch_dense",
        "embed_vision.embedding_projection",
        "embed_audio.embedding_projection",
    ):
        weight, scales, biases = mx.quantize(tensors.pop(f"model.{module}.weight"), group_size=64, bits=8)
        tensors |= {f"{module}.weight": weight, f"{module}.scales": scales, f"{module}.biases": biases}
    mx.save_safetensors(str(tmp_path / "model.safetensors"), tensors)
    config = json.loads((source / "config.json").read_text()) | {"quantization": {"bits": 8, "group_size": 64}}
    (tmp_path / "config.json").write_text(json.dumps(config))
    packed = load_model(tmp_path, read_config(tmp_path))

    patches = mx.random.uniform(shape=(6, 6912), key=mx.random.key(0))
    positions = mx.array([[x, y] for y in range(2) for x in range(3)])
    frames = mx.random.normal((4, 640), key=mx.random.key(1))
    for ours, theirs in (
        (packed.embed_image(patches, positions), plain.embed_image(patches, positions)),
        (packed.embed_sound(frames), plain.embed_sound(frames)),
    ):
        assert float(mx.abs(ours - theirs).max() / mx.abs(theirs).max()) < 0.05
