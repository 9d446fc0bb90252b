"""config.json of a `gemma4_unified` checkpoint, read into frozen dataclasses.

Two generations of the file exist. The released one says `global_head_dim` and `num_global_key_value_heads`; the one
that newer transformers write when they save again says the same per layer, in `per_layer_config`. What this
architecture does not do (experts, per-layer inputs, shared KV layers, another rope) is refused by name; a key that
nobody here knows is listed in `Config.unknown_keys`, for the caller to warn about.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast

from gemma_mlx.errors import CheckpointError
from gemma_mlx.quantization import Quantization, read_quantization

LayerType = Literal["sliding_attention", "full_attention"]

MODEL_TYPE = "gemma4_unified"


@dataclass(frozen=True)
class TextConfig:
    """The decoder."""

    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int
    """K/V heads of a sliding layer."""
    head_dim: int
    """Width of a head of a sliding layer."""
    num_global_key_value_heads: int
    """K/V heads of a full layer; its keys and values come from one projection."""
    global_head_dim: int
    """Width of a head of a full layer."""
    layer_types: tuple[LayerType, ...]
    sliding_window: int
    """A query sees itself and the `sliding_window - 1` positions before it on a sliding layer."""
    max_position_embeddings: int
    rms_norm_eps: float
    final_logit_softcapping: float | None
    sliding_rope_theta: float
    full_rope_theta: float
    partial_rotary_factor: float
    """The share of a full layer's head that rope turns."""
    pad_token_id: int

    @property
    def rotated_dims(self) -> int:
        """How many of a full layer's `global_head_dim` dims rope turns: 128 of 512 in the 12B."""
        return 2 * int(self.partial_rotary_factor * self.global_head_dim // 2)

    @property
    def row_dims(self) -> int:
        """Width of a full layer's cache row, which holds key and value together: 640 in the 12B."""
        return self.global_head_dim + self.rotated_dims

    @property
    def full_layers(self) -> int:
        return self.layer_types.count("full_attention")

    @property
    def sliding_layers(self) -> int:
        return self.layer_types.count("sliding_attention")


@dataclass(frozen=True)
class VisionConfig:
    """The patch embedder."""

    patch_dims: int
    """Numbers in a patch: 48 x 48 pixels x 3 colours = 6912."""
    mm_embed_dim: int
    mm_posemb_size: int
    """Rows of the position table, for x and for y."""
    rms_norm_eps: float


@dataclass(frozen=True)
class AudioConfig:
    """The waveform projector."""

    audio_embed_dim: int
    """Samples in a frame: 640, which is 40 ms."""
    rms_norm_eps: float


@dataclass(frozen=True)
class Config:
    """A whole checkpoint."""

    text: TextConfig
    vision: VisionConfig
    audio: AudioConfig
    image_token_id: int
    audio_token_id: int
    video_token_id: int
    quantization: Quantization | None
    unknown_keys: tuple[str, ...]

    @property
    def is_miniature(self) -> bool:
        """Whether this is a toy of the architecture and not Gemma 4 12B."""
        return self.text.hidden_size < 1024


def read_config(folder: Path) -> Config:
    """The configuration of the model in `folder`. Raises CheckpointError in one line if it is not this model."""
    return parse_config(read_json(folder / "config.json"))


def read_json(path: Path) -> dict[str, Any]:
    """The JSON object in `path`. Raises CheckpointError if the file is missing, unreadable or something else."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise CheckpointError(
            f"no {path.name} in {path.parent}: name a folder that holds a Gemma 4 12B checkpoint"
        ) from None
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(f"cannot read {path}: {error}; download or convert it again") from None
    if not isinstance(found, dict):
        raise CheckpointError(f"{path} holds {type(found).__name__}, not an object; download or convert it again")
    return cast("dict[str, Any]", found)


def parse_config(data: dict[str, Any]) -> Config:
    """The configuration in a decoded config.json. Raises CheckpointError for anything this code does not run."""
    found = data.get("model_type", "nothing")
    if found != MODEL_TYPE:
        raise CheckpointError(
            f"this is a checkpoint of {found!r}, not {MODEL_TYPE!r}: gemma-mlx runs Gemma 4 12B (unified) only"
        )
    try:
        vision, audio = data["vision_config"], data["audio_config"]
        config = Config(
            text=parse_text_config(data["text_config"]),
            vision=VisionConfig(
                patch_dims=3 * (int(vision["patch_size"]) * int(vision["pooling_kernel_size"])) ** 2,
                mm_embed_dim=int(vision["mm_embed_dim"]),
                mm_posemb_size=int(vision["mm_posemb_size"]),
                rms_norm_eps=float(vision.get("rms_norm_eps", 1e-6)),
            ),
            audio=AudioConfig(
                audio_embed_dim=int(audio["audio_embed_dim"]),
                rms_norm_eps=float(audio.get("rms_norm_eps", 1e-6)),
            ),
            image_token_id=int(data["image_token_id"]),
            audio_token_id=int(data["audio_token_id"]),
            video_token_id=int(data["video_token_id"]),
            quantization=read_quantization(data),
            unknown_keys=unknown_keys(data, _KNOWN),
        )
    except KeyError as error:
        raise CheckpointError(f"config.json lacks {error.args[0]!r}; download or convert the model again") from None
    except (TypeError, ValueError, AttributeError, OverflowError) as error:
        raise CheckpointError(
            f"config.json does not make sense: {error}; download or convert the model again"
        ) from None
    return config


# What the architecture does not do: key -> the values that mean "off".
_OFF: dict[str, tuple[object, ...]] = {
    "enable_moe_block": (False, None),
    "num_experts": (None, 0),
    "top_k_experts": (None, 0),
    "moe_intermediate_size": (None, 0),
    "hidden_size_per_layer_input": (0, None),
    "num_kv_shared_layers": (0, None),
    "use_double_wide_mlp": (False, None),
    "attention_bias": (False, None),
    "attention_k_eq_v": (True,),
    "hidden_activation": ("gelu_pytorch_tanh",),
    "use_bidirectional_attention": ("vision",),
    "tie_word_embeddings": (True, None),
}

_DEFAULT_ROPE: dict[str, dict[str, Any]] = {
    "sliding_attention": {"rope_type": "default", "rope_theta": 10_000.0},
    "full_attention": {"rope_type": "proportional", "rope_theta": 1_000_000.0, "partial_rotary_factor": 0.25},
}


def parse_text_config(data: dict[str, Any]) -> TextConfig:
    """The decoder in a decoded `text_config`. Raises CheckpointError, or KeyError and ValueError for `parse_config`."""
    for key, allowed in _OFF.items():
        if key in data and data[key] not in allowed:
            raise CheckpointError(
                f"the checkpoint has {key} = {data[key]!r}, which Gemma 4 12B (unified) does not use: it is another "
                "model, and gemma-mlx cannot run it"
            )
    if "attention_k_eq_v" not in data:
        raise KeyError("text_config.attention_k_eq_v")
    layers = int(data["num_hidden_layers"])
    layer_types = _layer_types(data.get("layer_types"), layers)
    global_head_dim, global_kv_heads = _full_layer_shape(data, layer_types)
    rope = data.get("rope_parameters") or _DEFAULT_ROPE
    for kind, wanted in _DEFAULT_ROPE.items():
        for key, value in rope[kind].items():
            if key not in wanted or (key == "rope_type" and value != wanted[key]):
                raise CheckpointError(
                    f"the checkpoint asks for {key} = {value!r} in the rope of {kind} layers; gemma-mlx has "
                    f"{wanted['rope_type']!r} rope only"
                )
    softcap = data.get("final_logit_softcapping")
    config = TextConfig(
        vocab_size=int(data["vocab_size"]),
        hidden_size=int(data["hidden_size"]),
        intermediate_size=int(data["intermediate_size"]),
        num_hidden_layers=layers,
        num_attention_heads=int(data["num_attention_heads"]),
        num_key_value_heads=int(data["num_key_value_heads"]),
        head_dim=int(data["head_dim"]),
        num_global_key_value_heads=global_kv_heads,
        global_head_dim=global_head_dim,
        layer_types=layer_types,
        sliding_window=int(data["sliding_window"]),
        max_position_embeddings=int(data["max_position_embeddings"]),
        rms_norm_eps=float(data["rms_norm_eps"]),
        final_logit_softcapping=None if softcap is None else float(softcap),
        sliding_rope_theta=float(rope["sliding_attention"]["rope_theta"]),
        full_rope_theta=float(rope["full_attention"]["rope_theta"]),
        partial_rotary_factor=float(rope["full_attention"].get("partial_rotary_factor", 1.0)),
        pad_token_id=int(data.get("pad_token_id") or 0),
    )
    sizes = {name: size for name, size in vars(config).items() if type(size) is int and name != "pad_token_id"}
    for name, size in sizes.items():
        if size < 1:
            raise ValueError(f"{name} is {size}")
    if not 0 <= config.pad_token_id < config.vocab_size:
        raise ValueError(f"pad_token_id is {config.pad_token_id} in a vocabulary of {config.vocab_size}")
    for name in ("num_key_value_heads", "num_global_key_value_heads"):
        if config.num_attention_heads % sizes[name]:
            raise ValueError(f"{config.num_attention_heads} attention heads cannot share {sizes[name]} {name}")
    return config


def _layer_types(found: list[str] | None, layers: int) -> tuple[LayerType, ...]:
    kinds = found or ["full_attention" if i % 6 == 5 else "sliding_attention" for i in range(layers)]
    if len(kinds) != layers:
        raise CheckpointError(f"config.json names {len(kinds)} layer_types for {layers} layers; download it again")
    for kind in kinds:
        if kind not in ("sliding_attention", "full_attention"):
            raise CheckpointError(f"layer type {kind!r} is not one of Gemma 4's; gemma-mlx cannot run this model")
    if kinds[-1] != "full_attention":
        raise CheckpointError("the last layer must be full_attention in Gemma 4; gemma-mlx cannot run this model")
    return tuple(cast("list[LayerType]", kinds))


def _full_layer_shape(data: dict[str, Any], layer_types: tuple[LayerType, ...]) -> tuple[int, int]:
    """(head width, K/V heads) of the full layers, from either generation of the file."""
    per_layer = data.get("per_layer_config")
    if per_layer is None:
        heads = data.get("num_global_key_value_heads") or data["num_key_value_heads"]
        return int(data["global_head_dim"]), int(heads)
    overrides = {int(index): layer for index, layer in per_layer.items()}  # the keys are written "05"
    shapes = set()
    for index, kind in enumerate(layer_types):
        layer = overrides.get(index, {})
        shape = (
            int(layer.get("head_dim", data["head_dim"])),
            int(layer.get("num_key_value_heads", data["num_key_value_heads"])),
        )
        if kind == "full_attention":
            shapes.add(shape)
        elif shape != (int(data["head_dim"]), int(data["num_key_value_heads"])):
            raise CheckpointError(f"per_layer_config gives sliding layer {index} a shape of its own: {shape}")
    if len(shapes) != 1:
        raise CheckpointError(f"per_layer_config gives the full layers different shapes: {sorted(shapes)}")
    return shapes.pop()


# Keys that say nothing about the computation, or that are checked above.
_KNOWN = {
    "": """architectures audio_config audio_token_id boa_token_id boi_token_id dtype eoa_token_id eoa_token_index
        eoi_token_id eos_token_id image_token_id initializer_range model_type quantization quantization_config
        text_config tie_word_embeddings torch_dtype transformers_version video_token_id vision_config vocab_size
        pad_token_id bos_token_id vision_soft_tokens_per_image hidden_size generation_config do_sample temperature
        top_k top_p""",
    "text_config": """attention_dropout bos_token_id eos_token_id global_head_dim head_dim hidden_size
        intermediate_size layer_types max_position_embeddings model_type num_attention_heads
        num_global_key_value_heads num_hidden_layers num_key_value_heads pad_token_id per_layer_config
        rms_norm_eps rope_parameters sliding_window vocab_size vocab_size_per_layer_input
        final_logit_softcapping""",
    "vision_config": """mm_embed_dim mm_posemb_size model_patch_size model_type num_soft_tokens output_proj_dims
        patch_size pooling_kernel_size rms_norm_eps""",
    "audio_config": "audio_embed_dim audio_samples_per_token hidden_size model_type output_proj_dims rms_norm_eps",
}
_SAVED_BY_ALL = """_name_or_path architectures chunk_size_feed_forward dtype id2label initializer_range
    is_encoder_decoder label2id output_attentions output_hidden_states problem_type return_dict torch_dtype use_cache
    transformers_version"""


def unknown_keys(data: dict[str, Any], known_keys: dict[str, str]) -> tuple[str, ...]:
    """The keys of each section of `data` (itself: "") that are neither in `known_keys` nor written by every model."""
    unknown = []
    for section, known in known_keys.items():
        known_here = {*known.split(), *_SAVED_BY_ALL.split(), *(_OFF if section == "text_config" else ())}
        found = data[section] if section else data
        unknown += [f"{section}.{key}".lstrip(".") for key in found if key not in known_here]
    return tuple(unknown)
