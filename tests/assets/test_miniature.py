"""The miniature is a complete folder in the released format, and holds what its model card says."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer

from assets.training.corpus import training_texts
from assets.training.tokenizer import SPECIAL_TOKENS, WORD

ASSETS = Path(__file__).parents[2] / "assets"
MINIATURE = ASSETS / "miniature"
TOKENIZER = Tokenizer.from_file(str(MINIATURE / "tokenizer.json"))


def read(name: str) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((MINIATURE / name).read_text(encoding="utf-8"))
    return content


def ids_of(text: str) -> list[int]:
    ids: list[int] = TOKENIZER.encode(text, add_special_tokens=False).ids
    return ids


def header() -> dict[str, Any]:
    """The JSON header of model.safetensors."""
    with (MINIATURE / "model.safetensors").open("rb") as file:
        (length,) = struct.unpack("<Q", file.read(8))
        content: dict[str, Any] = json.loads(file.read(length))
    return content


def expected_shapes() -> dict[str, list[int]]:
    """Names and shapes of the released model's tensors, at the sizes of the miniature's config."""
    text = read("config.json")["text_config"]
    hidden, inner = text["hidden_size"], text["intermediate_size"]
    shapes = {
        "model.language_model.embed_tokens.weight": [text["vocab_size"], hidden],
        "model.language_model.norm.weight": [hidden],
        "model.vision_embedder.patch_ln1.weight": [6912],
        "model.vision_embedder.patch_ln1.bias": [6912],
        "model.vision_embedder.patch_dense.weight": [hidden, 6912],
        "model.vision_embedder.patch_dense.bias": [hidden],
        "model.vision_embedder.patch_ln2.weight": [hidden],
        "model.vision_embedder.patch_ln2.bias": [hidden],
        "model.vision_embedder.pos_embedding": [1120, 2, hidden],
        "model.vision_embedder.pos_norm.weight": [hidden],
        "model.vision_embedder.pos_norm.bias": [hidden],
        "model.embed_vision.embedding_projection.weight": [hidden, hidden],
        "model.embed_audio.embedding_projection.weight": [hidden, 640],
    }
    for i, kind in enumerate(text["layer_types"]):
        full = kind == "full_attention"
        size = text["global_head_dim"] if full else text["head_dim"]
        heads = text["num_attention_heads"]
        kv_heads = text["num_global_key_value_heads"] if full else text["num_key_value_heads"]
        norms = (
            "input_layernorm",
            "post_attention_layernorm",
            "pre_feedforward_layernorm",
            "post_feedforward_layernorm",
        )
        layer = {f"{norm}.weight": [hidden] for norm in norms} | {
            "layer_scalar": [1],
            "mlp.gate_proj.weight": [inner, hidden],
            "mlp.up_proj.weight": [inner, hidden],
            "mlp.down_proj.weight": [hidden, inner],
            "self_attn.q_proj.weight": [heads * size, hidden],
            "self_attn.k_proj.weight": [kv_heads * size, hidden],
            "self_attn.o_proj.weight": [hidden, heads * size],
            "self_attn.q_norm.weight": [size],
            "self_attn.k_norm.weight": [size],
        }
        if not full:
            layer["self_attn.v_proj.weight"] = [kv_heads * size, hidden]
        shapes |= {f"model.language_model.layers.{i}.{name}": shape for name, shape in layer.items()}
    return shapes


def test_tensors_have_the_released_names_and_shapes_in_bfloat16() -> None:
    tensors = header()
    assert tensors.pop("__metadata__") == {"format": "pt"}
    assert {name: tensor["shape"] for name, tensor in tensors.items()} == expected_shapes()
    assert {tensor["dtype"] for tensor in tensors.values()} == {"BF16"}


def test_every_input_side_divides_into_quantization_groups_of_64() -> None:
    shapes = [s for n, s in expected_shapes().items() if "language_model" in n and len(s) == 2]
    assert all(columns % 64 == 0 for _, columns in shapes)


def test_assets_fit_in_18_megabytes() -> None:
    assert sum(path.stat().st_size for path in ASSETS.rglob("*") if path.is_file()) <= 18_000_000


def test_token_ids_of_the_config_are_those_of_the_tokenizer() -> None:
    config, generation = read("config.json"), read("generation_config.json")
    ids = {token: TOKENIZER.token_to_id(token) for token in SPECIAL_TOKENS}
    assert [ids[t] for t in ("<pad>", "<eos>", "<bos>", "<unk>", "<mask>")] == [0, 1, 2, 3, 4]
    assert config["image_token_id"] == ids["<|image|>"]
    assert config["audio_token_id"] == ids["<|audio|>"]
    assert config["video_token_id"] == ids["<|video|>"]
    assert (config["boi_token_id"], config["eoi_token_id"]) == (ids["<|image>"], ids["<image|>"])
    assert (config["boa_token_id"], config["eoa_token_index"]) == (ids["<|audio>"], ids["<audio|>"])
    assert config["text_config"]["vocab_size"] == TOKENIZER.get_vocab_size()
    assert generation["eos_token_id"] == [ids["<eos>"], ids["<turn|>"], ids["<|tool_response>"]]
    assert generation["suppress_tokens"] == [ids["<audio|>"], ids["<image|>"]]


def test_all_24_special_tokens_are_one_token_each() -> None:
    assert len(SPECIAL_TOKENS) == 24
    assert ids_of("".join(SPECIAL_TOKENS)) == [TOKENIZER.token_to_id(token) for token in SPECIAL_TOKENS]


def test_digits_and_capitals_are_spelled_out() -> None:
    assert len(ids_of("20251120")) == 8
    assert len(ids_of("THEANSWER42")) == 11


def test_every_word_of_the_training_texts_is_one_token() -> None:
    words = {w for text in training_texts() for w in WORD.findall(text.replace(" ", "▁"))}
    lower = [w.replace("▁", " ") for w in words if not w.strip("▁").isupper()]
    assert len(lower) > 300
    assert [w for w in lower if len(ids_of(w)) != 1] == []


@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=40))
def test_any_text_survives_encoding(text: str) -> None:
    if not any(token in text for token in SPECIAL_TOKENS):
        assert TOKENIZER.decode(ids_of(text), skip_special_tokens=False) == text.replace("▁", " ")


@pytest.mark.parametrize("weights", ["bf16", "4bit_simulated"])
def test_recorded_scores_are_those_of_a_trained_model(weights: str) -> None:
    scores = read("scores.json")[weights]
    assert scores["caption_exact"] >= 95
    assert scores["read_character_error_rate"] <= 5
    assert scores["speech_word_error_rate"] <= 10


def test_every_listed_sample_exists_and_no_other() -> None:
    folder = ASSETS / "samples"
    listed = {row["file"] for row in json.loads((folder / "samples.json").read_text(encoding="utf-8"))["samples"]}
    assert listed == {path.name for path in folder.iterdir()} - {"samples.json"}
