"""The miniature's drafter: its shape, its first weights, and transformers made to run it."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from transformers import Gemma4UnifiedAssistantConfig, Gemma4UnifiedAssistantForCausalLM
from transformers.models.gemma4_unified.configuration_gemma4_unified import Gemma4UnifiedTextConfig

from assets.training.architecture import HIDDEN, released_config
from assets.training.tokenizer import SPECIAL_IDS

DRAFTER_HIDDEN = 128
LAYER_TYPES = ("sliding_attention", "full_attention")
# As in the miniature: values other than 1 let a reader that ignores them be noticed.
LAYER_SCALARS = (0.85, 1.1)


def let_transformers_share() -> None:
    """Lets transformers 5.23 build a drafter, and its target return the keys and values that a drafter reads.

    Its `kv_sharing_modes` raises where all layers share and names no layer that stores where none does, so neither
    half of Gemma 4's assisted decoding runs. From now on it says what the releases before it did: all layers of a
    drafter reuse, and the target's last layer of each type stores.
    """
    Gemma4UnifiedTextConfig.kv_sharing_modes = property(_sharing_modes)


def _sharing_modes(config: Any) -> list[str | None]:
    types = list(config.layer_types)
    if config.num_kv_shared_layers:
        assert config.num_kv_shared_layers == len(types), "only drafters share layers in gemma4_unified"
        return ["reuse"] * len(types)
    return ["store" if kind not in types[index + 1 :] else None for index, kind in enumerate(types)]


def released_drafter_config(vocab_size: int) -> dict[str, Any]:
    """config.json of the miniature's drafter, in the spelling of google/gemma-4-12B-it-assistant."""
    text = released_config(vocab_size)["text_config"]
    text |= {
        "final_logit_softcapping": None,
        "hidden_size": DRAFTER_HIDDEN,
        "intermediate_size": 2 * DRAFTER_HIDDEN,
        "layer_types": list(LAYER_TYPES),
        "num_hidden_layers": len(LAYER_TYPES),
        "num_kv_shared_layers": len(LAYER_TYPES),
        "vocab_size_per_layer_input": 0,
    }
    return {
        "architectures": ["Gemma4UnifiedAssistantForCausalLM"],
        "audio_token_id": SPECIAL_IDS["<|audio|>"],
        "backbone_hidden_size": HIDDEN,
        "boa_token_id": SPECIAL_IDS["<|audio>"],
        "boi_token_id": SPECIAL_IDS["<|image>"],
        "centroid_intermediate_top_k": 32,
        "dtype": "bfloat16",
        "eoa_token_index": SPECIAL_IDS["<audio|>"],
        "eoi_token_id": SPECIAL_IDS["<image|>"],
        "image_token_id": SPECIAL_IDS["<|image|>"],
        "model_type": "gemma4_unified_assistant",
        "num_centroids": 2048,
        "text_config": text,
        "tie_word_embeddings": True,
        "transformers_version": "5.10.0.dev0",
        "use_ordered_embeddings": False,
    }


def build_drafter(vocab_size: int, seed: int) -> Any:
    """An untrained float32 drafter for the miniature."""
    let_transformers_share()
    torch.manual_seed(seed)
    config = Gemma4UnifiedAssistantConfig.from_dict(released_drafter_config(vocab_size))
    drafter: Any = Gemma4UnifiedAssistantForCausalLM(config).to(torch.float32)
    with torch.no_grad():
        for name, parameter in drafter.named_parameters():
            if name.endswith("q_norm.weight"):
                parameter.fill_(1.4 * parameter.numel() ** -0.25)
            elif "post_" in name and parameter.ndim == 1:
                parameter.fill_(0.4)
            elif parameter.ndim == 2:
                parameter.normal_(std=1 / math.sqrt(parameter.shape[1]))
        for layer, scalar in zip(drafter.model.layers, LAYER_SCALARS, strict=True):
            layer.layer_scalar.fill_(scalar)
    return drafter


def write_drafter(drafter: Any, folder: Path) -> None:
    """Writes config and bfloat16 weights under the names of the released drafter; the tied head is left out."""
    folder.mkdir(parents=True, exist_ok=True)
    config = released_drafter_config(drafter.vocab_size)
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    tensors = {
        name: tensor.detach().to(torch.bfloat16).contiguous()
        for name, tensor in drafter.state_dict().items()
        if name != "lm_head.weight"
    }
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
