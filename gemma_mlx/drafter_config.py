"""config.json of a `gemma4_unified_assistant` checkpoint, the draft head of Gemma 4 12B, and which model it is for."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gemma_mlx.config import (
    Config,
    TextConfig,
    parse_text_config,
    read_json,
    unknown_keys,
)
from gemma_mlx.errors import CheckpointError
from gemma_mlx.quantization import Quantization, read_quantization

DRAFTER_TYPE = "gemma4_unified_assistant"


@dataclass(frozen=True)
class DrafterConfig:
    """A whole drafter. Its layers have queries only: keys and values are those of its target."""

    text: TextConfig
    backbone_hidden_size: int
    """Width of the target's hidden states."""
    use_ordered_embeddings: bool
    """Whether logits are computed for the tokens of the likeliest centroids only."""
    num_centroids: int
    centroid_intermediate_top_k: int
    """How many centroids' tokens get a logit of their own."""
    quantization: Quantization | None
    unknown_keys: tuple[str, ...]

    @property
    def tokens_per_centroid(self) -> int:
        return self.text.vocab_size // self.num_centroids


def is_drafter(folder: Path) -> bool:
    """Whether `folder` holds a drafter, by its config.json. Raises CheckpointError if that cannot be read."""
    return read_json(folder / "config.json").get("model_type") == DRAFTER_TYPE


def read_drafter_config(folder: Path) -> DrafterConfig:
    """The configuration of the drafter in `folder`. Raises CheckpointError in one line if it is not one."""
    return parse_drafter_config(read_json(folder / "config.json"))


def parse_drafter_config(data: dict[str, Any]) -> DrafterConfig:
    """The configuration in a decoded config.json. Raises CheckpointError for anything this code does not run."""
    found = data.get("model_type", "nothing")
    if found != DRAFTER_TYPE:
        raise CheckpointError(
            f"this is a checkpoint of {found!r}, not {DRAFTER_TYPE!r}: name the drafter google/gemma-4-12B-it-assistant"
        )
    try:
        text = data["text_config"]
        layers = int(text["num_hidden_layers"])
        shared = text.get("num_kv_shared_layers") or layers  # transformers takes 0 for all, too
        if shared != layers:
            raise CheckpointError(
                f"the drafter shares {shared!r} of {layers} layers with its target; gemma-mlx runs drafters that share "
                "all of them: download google/gemma-4-12B-it-assistant"
            )
        config = DrafterConfig(
            text=parse_text_config({**text, "num_kv_shared_layers": 0}),
            backbone_hidden_size=int(data["backbone_hidden_size"]),
            use_ordered_embeddings=bool(data.get("use_ordered_embeddings", False)),
            num_centroids=int(data.get("num_centroids", 2048)),
            centroid_intermediate_top_k=int(data.get("centroid_intermediate_top_k", 32)),
            quantization=read_quantization(data),
            unknown_keys=unknown_keys(data, _KNOWN),
        )
        if config.backbone_hidden_size < 1:
            raise ValueError(f"backbone_hidden_size is {config.backbone_hidden_size}")
        if config.use_ordered_embeddings:
            _check_centroids(config)
    except KeyError as error:
        raise CheckpointError(
            f"the drafter's config.json lacks {error.args[0]!r}; download or convert the drafter again"
        ) from None
    except (TypeError, ValueError, AttributeError, OverflowError) as error:
        raise CheckpointError(
            f"the drafter's config.json does not make sense: {error}; download or convert the drafter again"
        ) from None
    return config


def _check_centroids(config: DrafterConfig) -> None:
    centroids, top_k = config.num_centroids, config.centroid_intermediate_top_k
    if centroids < 1 or config.text.vocab_size % centroids:
        raise ValueError(f"{config.text.vocab_size} tokens cannot be spread over {centroids} centroids")
    if not 1 <= top_k <= centroids:
        raise ValueError(f"centroid_intermediate_top_k is {top_k} of {centroids} centroids")


def require_target(drafter: DrafterConfig, target: Config) -> None:
    """Raises CheckpointError in one line unless `drafter` was made for a target of this shape.

    The weights cannot tell whether it was: a drafter for other weights of the same shape drafts badly, and drafts that
    are wrong cost time, never a word.
    """
    shared = (
        ("hidden states", drafter.backbone_hidden_size, target.text.hidden_size),
        *((name, getattr(drafter.text, name), getattr(target.text, name)) for name in _SHARED),
    )
    for name, ours, wanted in shared:
        if ours != wanted:
            raise CheckpointError(
                f"the drafter belongs to another model: its {name} is {ours!r}, the model's {wanted!r}; use the "
                "drafter of this model, or --draft off"
            )
    missing = set(drafter.text.layer_types) - set(target.text.layer_types)
    if missing:
        raise CheckpointError(
            f"the drafter reads {missing.pop()} layers, which the model does not have; use the drafter of this model, "
            "or --draft off"
        )


_SHARED = (
    "vocab_size",
    "head_dim",
    "num_key_value_heads",
    "global_head_dim",
    "num_global_key_value_heads",
    "partial_rotary_factor",
    "sliding_rope_theta",
    "full_rope_theta",
    "sliding_window",
)
"""What a drafter's queries must have in common with its target's keys and values."""

_KNOWN = {
    "": """architectures audio_token_id backbone_hidden_size boa_token_id boi_token_id centroid_intermediate_top_k
        dtype eoa_token_id eoa_token_index eoi_token_id eos_token_id image_token_id initializer_range model_type
        num_centroids quantization quantization_config text_config tie_word_embeddings torch_dtype
        transformers_version use_ordered_embeddings video_token_id bos_token_id pad_token_id""",
    "text_config": """attention_dropout bos_token_id eos_token_id final_logit_softcapping global_head_dim head_dim
        hidden_size intermediate_size layer_types max_position_embeddings model_type num_attention_heads
        num_global_key_value_heads num_hidden_layers num_key_value_heads pad_token_id per_layer_config rms_norm_eps
        rope_parameters sliding_window vocab_size vocab_size_per_layer_input""",
}
