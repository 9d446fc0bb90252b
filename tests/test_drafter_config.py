"""config.json of drafters, every refusal by name, and which model a drafter belongs to."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from gemma_mlx.config import parse_config
from gemma_mlx.drafter_config import parse_drafter_config, read_drafter_config, require_target
from gemma_mlx.errors import CheckpointError
from tests.drafters import drafter_data, target_config
from tests.golden.cases import HERE, TINY


def refusal(data: dict[str, Any]) -> str:
    with pytest.raises(CheckpointError) as caught:
        parse_drafter_config(data)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_stored_drafters_are_read_and_nothing_in_them_is_unknown() -> None:
    dense, ordered = (read_drafter_config(HERE / "drafters" / head) for head in ("dense", "ordered"))
    assert (dense.use_ordered_embeddings, ordered.use_ordered_embeddings) == (False, True)
    assert (ordered.num_centroids, ordered.centroid_intermediate_top_k, ordered.tokens_per_centroid) == (16, 3, 8)
    assert dense.text.layer_types == ("sliding_attention", "sliding_attention", "full_attention")
    assert dense.backbone_hidden_size == 64
    assert dense.unknown_keys == ordered.unknown_keys == ()
    require_target(dense, parse_config(json.loads((TINY / "config.json").read_text())))


def test_unknown_keys_are_listed() -> None:
    data = drafter_data(target_config(), {"novelty": 1}, surprise=2)
    assert parse_drafter_config(data).unknown_keys == ("surprise", "text_config.novelty")


@pytest.mark.parametrize(
    ("text", "data", "told"),
    [
        ({}, {"model_type": "gemma4_unified"}, "'gemma4_unified', not 'gemma4_unified_assistant'"),
        ({"num_kv_shared_layers": 1}, {}, "shares 1 of 2 layers"),
        ({"attention_k_eq_v": False}, {}, "attention_k_eq_v = False"),
        ({"layer_types": ["full_attention", "sliding_attention"]}, {}, "last layer must be full_attention"),
        ({"head_dim": None}, {}, "does not make sense"),
        ({}, {"backbone_hidden_size": 0}, "backbone_hidden_size is 0"),
        ({}, {"use_ordered_embeddings": True, "num_centroids": 3}, "256 tokens cannot be spread over 3 centroids"),
        ({}, {"use_ordered_embeddings": True, "centroid_intermediate_top_k": 17}, "is 17 of 16 centroids"),
    ],
)
def test_what_this_code_does_not_run_is_refused_by_name(text: dict[str, Any], data: dict[str, Any], told: str) -> None:
    assert told in refusal(drafter_data(target_config(), text, **data))


@pytest.mark.parametrize("lacking", ["backbone_hidden_size", "text_config"])
def test_a_missing_key_is_named(lacking: str) -> None:
    data = drafter_data(target_config())
    del data[lacking]
    assert f"lacks {lacking!r}" in refusal(data)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"hidden_size": 128}, "hidden states is 64, the model's 128"),
        ({"vocab_size": 512}, "vocab_size is 256, the model's 512"),
        ({"head_dim": 64}, "head_dim is 32, the model's 64"),
        ({"global_head_dim": 128}, "global_head_dim is 64, the model's 128"),
        ({"num_key_value_heads": 4}, "num_key_value_heads is 2, the model's 4"),
        ({"num_global_key_value_heads": 2}, "num_global_key_value_heads is 1, the model's 2"),
        ({"sliding_window": 16}, "sliding_window is 8, the model's 16"),
        ({"full_rope_theta": 1e4}, "full_rope_theta is 1000000.0, the model's 10000.0"),
        ({"layer_types": ("full_attention", "full_attention")}, "reads sliding_attention layers"),
    ],
)
def test_a_drafter_of_another_model_is_refused(change: dict[str, Any], told: str) -> None:
    drafter, target = parse_drafter_config(drafter_data(target_config())), target_config()
    require_target(drafter, target)
    with pytest.raises(CheckpointError) as caught:
        require_target(drafter, replace(target, text=replace(target.text, **change)))
    assert told in str(caught.value)
    assert "\n" not in str(caught.value)
