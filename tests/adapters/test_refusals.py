"""What is no adapter for this model is refused in one line that says why, before a weight is read."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mlx.core as mx
import pytest

from gemma_mlx.errors import CheckpointError
from tests.adapters.trained import ADAPTERS, adapter_for
from tests.golden.cases import TINY

Tensors = dict[str, mx.array]
LORA_Q = "language_model.model.layers.11.self_attn.q_proj"
PEFT_Q = "base_model.model.model.language_model.layers.11.self_attn.q_proj"


def changed(
    folder: Path, name: str, config: dict[str, Any], tensors: Callable[[Tensors], object] = lambda tensors: None
) -> Path:
    """A copy of the golden adapter `name` with these keys in its config, and its tensors changed in place."""
    shutil.copytree(ADAPTERS / name, folder)
    file = folder / "adapter_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | config))
    [weights] = folder.glob("*.safetensors")
    found = mx.load(str(weights))
    assert isinstance(found, dict)
    mx.eval(found)
    tensors(found)
    mx.save_safetensors(str(weights), found)
    return folder


def refusal(folder: Path) -> str:
    with pytest.raises(CheckpointError) as caught:
        adapter_for(TINY, folder)
    message = str(caught.value)
    assert "\n" not in message
    assert str(folder) in message
    return message


def renamed(old: str, new: str) -> Callable[[Tensors], object]:
    def rename(tensors: Tensors) -> None:
        for name in [name for name in tensors if old in name]:
            tensors[name.replace(old, new)] = tensors.pop(name)

    return rename


def replaced(name: str, new: Callable[[mx.array], mx.array]) -> Callable[[Tensors], object]:
    return lambda tensors: tensors.update({name: new(tensors[name])})


def widened(array: mx.array) -> mx.array:
    return mx.concatenate([array, array])


CASES: list[tuple[str, dict[str, Any], Callable[[Tensors], object], str]] = [
    # of another model
    ("lora", {"model": "a/llama"}, renamed("layers.11", "layers.40"), "layers.40.self_attn.*'a/llama'"),
    ("lora", {}, replaced(f"{LORA_Q}.lora_a", widened), r"q_proj.weight of shape \[128, 128\], which has \[128, 64\]"),
    ("peft_rslora", {}, renamed("down_proj", "o_proj.down_proj"), "o_proj.down_proj, which is not in this one"),
    ("full", {}, replaced("language_model.model.layers.11.layer_scalar", widened), r"of shape \[2\], which has \[1\]"),
    ("full", {}, renamed("layers.11", "layers.12"), "layers.12.*'tiny'"),
    # another kind
    ("lora", {"fine_tune_type": "ia3"}, lambda _: None, "'ia3'"),
    ("lora", {"fine_tune_type": ["lora"]}, lambda _: None, "fine_tune_type"),
    ("peft_dora", {"peft_type": "LOHA"}, lambda _: None, "'LOHA'"),
    ("peft_dora", {"peft_type": "PROMPT_TUNING"}, lambda _: None, "'PROMPT_TUNING'"),
    ("peft_dora", {"alora_invocation_tokens": [1]}, lambda _: None, "alora_invocation_tokens"),
    ("peft_dora", {"fan_in_fan_out": True}, lambda _: None, "fan_in_fan_out"),
    ("peft_dora", {"init_lora_weights": "pissa"}, lambda _: None, "'pissa'"),
    ("peft_rslora", {}, renamed("layers.11.self_attn.q_proj", "embed_tokens"), "target_modules do not name"),
    (
        "peft_dora",
        {"target_modules": "all-linear"},
        renamed("layers.11.self_attn.q_proj", "embed_tokens"),
        "it changes embed_tokens",
    ),
    (
        "peft_dora",
        {},
        renamed("layers.11.self_attn.q_proj.lora_A.weight", "embed_tokens.lora_embedding_A"),
        "embed_tokens",
    ),
    # config and file are not of one adapter
    ("lora", {"lora_parameters": {"rank": 4, "scale": 2.0}}, lambda _: None, "rank 4 for .* the file holds rank 3"),
    ("lora", {"lora_parameters": {"rank": 3, "scale": None}}, lambda _: None, "scale is None"),
    ("lora", {"lora_parameters": [3]}, lambda _: None, "lora_parameters"),
    ("dora", {"fine_tune_type": "lora"}, lambda _: None, "has a DoRA magnitude"),
    ("lora", {"fine_tune_type": "dora"}, lambda _: None, "lacks the magnitude"),
    ("lora", {}, lambda tensors: tensors.pop(f"{LORA_Q}.lora_b"), "q_proj lacks the up"),
    ("lora", {}, renamed(f"{LORA_Q}.lora_b", f"{LORA_Q}.lora_c"), "lora_c, which is no part"),
    ("lora", {}, replaced(f"{LORA_Q}.lora_b", widened), "do not go together"),
    ("dora", {}, replaced(f"{LORA_Q}.m", widened), "magnitude of .* for 128 rows"),
    (
        "lora",
        {},
        lambda tensors: tensors.update({f"model.{LORA_Q}.lora_a": tensors[f"{LORA_Q}.lora_a"]}),
        "twice, in two spellings",
    ),
    (
        "peft_rslora",
        {},
        lambda tensors: tensors.update(
            {
                name.replace("model.model.", "model."): array
                for name, array in list(tensors.items())
                if "layers.11.self_attn.q_proj" in name
            }
        ),
        "twice, in two spellings",
    ),
    (
        "full",
        {},
        lambda tensors: tensors.update(
            {
                name.replace("language_model.model.", "model.language_model."): array
                for name, array in list(tensors.items())
            }
        ),
        "twice, in two spellings",
    ),
    ("peft_rslora", {"modules_to_save": None}, lambda _: None, "input_layernorm.weight, which is no part"),
    ("peft_rslora", {"rank_pattern": {}}, lambda _: None, "rank 2 for .* rank 3"),
    ("peft_rslora", {"rank_pattern": {"(": 2}}, lambda _: None, "which is none"),
    ("peft_rslora", {"target_modules": ["q_proj"]}, lambda _: None, "target_modules do not name"),
    ("peft_rslora", {"target_modules": 5}, lambda _: None, "target_modules is 5"),
    ("peft_dora", {"r": "2"}, lambda _: None, "r is '2'"),
    (
        "full",
        {},
        replaced("language_model.model.layers.11.layer_scalar", lambda array: array.astype(mx.float16)),
        "layer_scalar is a whole tensor in float16, in which Gemma 4 overflows; save it in bfloat16",
    ),
    # damaged
    ("lora", {}, replaced(f"{LORA_Q}.lora_a", lambda array: array * mx.nan), "lora_a in .* NaN"),
    ("full", {}, replaced("language_model.model.layers.11.layer_scalar", lambda array: array / 0), "infinity"),
    ("peft_dora", {}, replaced(f"{PEFT_Q}.lora_A.weight", lambda array: array.view(mx.uint32)), "U32"),
    ("lora", {}, lambda tensors: tensors.clear(), "holds no tensors"),
]


@pytest.mark.parametrize(("name", "config", "tensors", "told"), CASES, ids=[case[3] for case in CASES])
def test_an_adapter_that_does_not_fit_is_refused(
    tmp_path: Path, name: str, config: dict[str, Any], tensors: Callable[[Tensors], object], told: str
) -> None:
    message = refusal(changed(tmp_path / "changed", name, config, tensors))
    assert re.search(told, message), message


def test_a_folder_without_an_adapter_is_refused(tmp_path: Path) -> None:
    assert "no adapter_config.json" in refusal(tmp_path)
    config = tmp_path / "adapter_config.json"
    config.write_text('{"rank": 8, "alpha": 16}')
    assert "neither mlx-lm's nor PEFT's" in refusal(tmp_path)
    config.write_text("{")
    assert "cannot read" in refusal(tmp_path)
    config.write_text('{"peft_type": "LORA"}')
    assert "no adapter_model.safetensors: copy it again" in refusal(tmp_path)
    (tmp_path / "adapter_model.bin").write_bytes(b"\x80\x04.")
    assert "pickled weights can run code" in refusal(tmp_path)
    (tmp_path / "adapter_model.safetensors").write_bytes(b"short")
    assert "is damaged" in refusal(tmp_path)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("language_model.model.layers", "model.layers"),  # trained on the text model alone
        ("language_model.model.layers", "model.language_model.layers"),
    ],
)
def test_every_spelling_of_a_module_is_that_module(tmp_path: Path, old: str, new: str) -> None:
    spelled = adapter_for(TINY, changed(tmp_path / "changed", "qlora", {}, renamed(old, new)))
    assert spelled.updates.keys() == adapter_for(TINY, ADAPTERS / "qlora").updates.keys()


@pytest.mark.parametrize("name", ["lora", "dora", "peft_rslora"])
def test_factors_in_float16_are_taken(tmp_path: Path, name: str) -> None:
    def half(tensors: Tensors) -> None:
        tensors |= {
            key: array.astype(mx.float16) for key, array in tensors.items() if ".lora_" in key or key[-2:] == ".m"
        }

    exact, found = adapter_for(TINY, ADAPTERS / name), adapter_for(TINY, changed(tmp_path / name, name, {}, half))
    assert found.updates.keys() == exact.updates.keys()
    for path, update in found.updates.items():
        assert update.up.dtype == mx.float16
        rows = mx.zeros(update.shape)
        assert mx.allclose(update.added_to(rows, 0), exact.updates[path].added_to(rows, 0), rtol=2**-8, atol=1e-4)
