"""config.json in both generations, and every refusal by name."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest

from gemma_mlx.config import parse_config, read_config
from gemma_mlx.errors import CheckpointError
from tests.golden.cases import HERE, TINY

Data = dict[str, Any]


@pytest.fixture
def released() -> Data:
    data: Data = json.loads((TINY / "config.json").read_text())
    return data


@pytest.fixture
def resaved() -> Data:
    data: Data = json.loads((HERE / "tiny_resaved_config.json").read_text())
    return data


def refusal(data: Data) -> str:
    with pytest.raises(CheckpointError) as caught:
        parse_config(data)
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_released_spelling(released: Data) -> None:
    config = parse_config(released)
    text = config.text
    assert (text.head_dim, text.num_key_value_heads) == (16, 2)
    assert (text.global_head_dim, text.num_global_key_value_heads) == (32, 1)
    assert (text.rotated_dims, text.row_dims) == (8, 40)
    assert (text.sliding_layers, text.full_layers, text.sliding_window) == (10, 2, 8)
    assert (text.sliding_rope_theta, text.full_rope_theta) == (1e4, 1e6)
    assert text.final_logit_softcapping == 30.0
    assert (config.vision.patch_dims, config.audio.audio_embed_dim) == (3 * 12 * 12, 40)
    assert (config.image_token_id, config.audio_token_id, config.video_token_id) == (120, 121, 122)
    assert config.quantization is None
    assert config.unknown_keys == ()


def test_resaved_spelling_is_the_same_model(released: Data, resaved: Data) -> None:
    assert "global_head_dim" not in resaved["text_config"]
    assert parse_config(resaved) == parse_config(released)


def test_sizes_of_the_12b(released: Data) -> None:
    released["text_config"] |= {"global_head_dim": 512, "head_dim": 256}
    released["vision_config"] |= {"patch_size": 16}
    config = parse_config(released)
    assert (config.text.rotated_dims, config.text.row_dims, config.vision.patch_dims) == (128, 640, 6912)


def test_layer_types_and_rope_default_to_those_of_gemma_4(released: Data) -> None:
    wanted = parse_config(released)
    del released["text_config"]["layer_types"]
    del released["text_config"]["rope_parameters"]
    assert parse_config(released) == wanted


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("enable_moe_block", True),
        ("num_experts", 128),
        ("hidden_size_per_layer_input", 256),
        ("num_kv_shared_layers", 18),
        ("use_double_wide_mlp", True),
        ("attention_bias", True),
        ("attention_k_eq_v", False),
        ("hidden_activation", "silu"),
        ("use_bidirectional_attention", "all"),
        ("tie_word_embeddings", False),
    ],
)
def test_what_the_architecture_does_not_do_is_refused_by_name(released: Data, key: str, value: object) -> None:
    released["text_config"][key] = value
    message = refusal(released)
    assert f"{key} = {value!r}" in message
    assert "another model" in message


@pytest.mark.parametrize(
    ("kind", "key", "value"),
    [
        ("full_attention", "rope_type", "default"),
        ("full_attention", "factor", 8.0),
        ("sliding_attention", "rope_type", "yarn"),
        ("sliding_attention", "partial_rotary_factor", 0.5),
    ],
)
def test_another_rope_is_refused(released: Data, kind: str, key: str, value: object) -> None:
    released["text_config"]["rope_parameters"][kind][key] = value
    assert f"{key} = {value!r} in the rope of {kind} layers" in refusal(released)


@pytest.mark.parametrize("found", ["gemma3", "gemma4", "gemma4_unified_text", None])
def test_another_model_is_refused_by_its_type(released: Data, found: str | None) -> None:
    released["model_type"] = found
    assert f"checkpoint of {found!r}, not 'gemma4_unified'" in refusal(released)


def test_no_model_type_is_refused(released: Data) -> None:
    del released["model_type"]
    assert "not 'gemma4_unified'" in refusal(released)


@pytest.mark.parametrize(
    "path",
    [
        "text_config",
        "vision_config",
        "audio_config",
        "image_token_id",
        "text_config.vocab_size",
        "text_config.hidden_size",
        "text_config.head_dim",
        "text_config.global_head_dim",
        "text_config.sliding_window",
        "text_config.attention_k_eq_v",
        "text_config.rope_parameters.full_attention",
        "text_config.rope_parameters.sliding_attention.rope_theta",
        "vision_config.patch_size",
        "audio_config.audio_embed_dim",
    ],
)
def test_missing_key_is_named(released: Data, path: str) -> None:
    section = released
    *parents, key = path.split(".")
    for parent in parents:
        section = section[parent]
    del section[key]
    message = refusal(released)
    assert "lacks" in message
    assert key in message


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("text_config", 5),
        ("text_config.hidden_size", "wide"),
        ("text_config.hidden_size", float("inf")),
        ("text_config.rope_parameters", [1]),
        ("vision_config", []),
    ],
)
def test_nonsense_is_refused(released: Data, path: str, value: object) -> None:
    section = released
    *parents, key = path.split(".")
    for parent in parents:
        section = section[parent]
    section[key] = value
    assert "config.json" in refusal(released)


def test_layer_types_must_fit(released: Data) -> None:
    text = released["text_config"]
    kinds = list(text["layer_types"])
    text["layer_types"] = kinds[:-1]
    assert "names 11 layer_types for 12 layers" in refusal(released)
    text["layer_types"] = [*kinds[:-1], "sliding_attention"]
    assert "last layer must be full_attention" in refusal(released)
    text["layer_types"] = ["linear_attention", *kinds[1:]]
    assert "'linear_attention'" in refusal(released)


def test_per_layer_config_must_be_one_shape(resaved: Data) -> None:
    text = resaved["text_config"]
    saved = copy.deepcopy(text["per_layer_config"])
    text["per_layer_config"]["05"]["head_dim"] = 64
    assert "full layers different shapes" in refusal(resaved)
    text["per_layer_config"] = saved | {"02": {"head_dim": 64}}
    assert "sliding layer 2 a shape of its own" in refusal(resaved)


def test_unknown_keys_are_listed(released: Data) -> None:
    released["flux_capacitor"] = 1
    released["text_config"]["altup"] = 2
    released["vision_config"]["tower"] = 3
    assert parse_config(released).unknown_keys == ("flux_capacitor", "text_config.altup", "vision_config.tower")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (None, "no config.json in"),
        ("{", "cannot read"),
        ("[1]", "holds list, not an object"),
        ("\x80", "cannot read"),
        ("[" * 100_000, "cannot read"),
    ],
)
def test_unreadable_file_is_refused(tmp_path: Path, text: str | None, expected: str) -> None:
    if text is not None:
        (tmp_path / "config.json").write_bytes(text.encode("latin-1"))
    with pytest.raises(CheckpointError, match=expected) as caught:
        read_config(tmp_path)
    assert "\n" not in str(caught.value)
