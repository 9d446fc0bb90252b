"""Configurations of small targets and of drafters for them, as decoded config.json."""

from __future__ import annotations

from typing import Any

from gemma_mlx.config import Config, parse_config
from tests.convert.small_source import CONFIG


def target_config(**text: Any) -> Config:
    """The small source's configuration, with what `text` changes in the decoder's."""
    return parse_config({**CONFIG, "text_config": {**CONFIG["text_config"], **text}})  # type: ignore[dict-item]


def drafter_data(target: Config, text: dict[str, Any] | None = None, **data: Any) -> dict[str, Any]:
    """config.json of a drafter for `target`, two layers of 64 dims, with what `text` and `data` change in it."""
    theirs = target.text
    layers = {
        "attention_k_eq_v": True,
        "global_head_dim": theirs.global_head_dim,
        "head_dim": theirs.head_dim,
        "hidden_size": 64,
        "intermediate_size": 128,
        "layer_types": ["sliding_attention", "full_attention"],
        "max_position_embeddings": theirs.max_position_embeddings,
        "num_attention_heads": 4,
        "num_global_key_value_heads": theirs.num_global_key_value_heads,
        "num_hidden_layers": 2,
        "num_key_value_heads": theirs.num_key_value_heads,
        "num_kv_shared_layers": 2,
        "rms_norm_eps": 1e-6,
        "sliding_window": theirs.sliding_window,
        "vocab_size": theirs.vocab_size,
        **(text or {}),
    }
    return {
        "model_type": "gemma4_unified_assistant",
        "backbone_hidden_size": theirs.hidden_size,
        "num_centroids": 16,
        "centroid_intermediate_top_k": 4,
        "text_config": layers,
        **data,
    }
