"""The miniature's shape and its first weights."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from transformers import Gemma4UnifiedConfig, Gemma4UnifiedForConditionalGeneration

from assets.training.sample import FRAME_SAMPLES, PATCH_PX, SAMPLE_RATE_HZ
from assets.training.tokenizer import SPECIAL_IDS

HIDDEN = 192
LAYERS = 6
SLIDING_WINDOW = 256
POSITION_ROWS = 1120
# The released model learns one scalar per layer; fixed values other than 1 let a reader that ignores them be noticed.
LAYER_SCALARS = (0.75, 0.85, 0.9, 0.95, 1.05, 1.1)


def released_config(vocab_size: int) -> dict[str, Any]:
    """config.json of the miniature, in the spelling of google/gemma-4-12B-it."""
    text = {
        "attention_bias": False,
        "attention_dropout": 0.0,
        "attention_k_eq_v": True,
        "bos_token_id": SPECIAL_IDS["<bos>"],
        "enable_moe_block": False,
        "eos_token_id": SPECIAL_IDS["<eos>"],
        "final_logit_softcapping": 30.0,
        "global_head_dim": 128,
        "head_dim": 64,
        "hidden_activation": "gelu_pytorch_tanh",
        "hidden_size": HIDDEN,
        "hidden_size_per_layer_input": 0,
        "initializer_range": 0.02,
        "intermediate_size": 4 * HIDDEN,
        "layer_types": ["sliding_attention"] * (LAYERS - 1) + ["full_attention"],
        "max_position_embeddings": 8192,
        "model_type": "gemma4_unified_text",
        "moe_intermediate_size": None,
        "num_attention_heads": 4,
        "num_experts": None,
        "num_global_key_value_heads": 1,
        "num_hidden_layers": LAYERS,
        "num_key_value_heads": 2,
        "num_kv_shared_layers": 0,
        "pad_token_id": SPECIAL_IDS["<pad>"],
        "rms_norm_eps": 1e-06,
        "rope_parameters": {
            "full_attention": {
                "partial_rotary_factor": 0.25,
                "rope_theta": 1_000_000.0,
                "rope_type": "proportional",
            },
            "sliding_attention": {"rope_theta": 10_000.0, "rope_type": "default"},
        },
        "sliding_window": SLIDING_WINDOW,
        "tie_word_embeddings": True,
        "top_k_experts": None,
        "use_bidirectional_attention": "vision",
        "use_cache": True,
        "use_double_wide_mlp": False,
        "vocab_size": vocab_size,
        "vocab_size_per_layer_input": vocab_size,
    }
    return {
        "architectures": ["Gemma4UnifiedForConditionalGeneration"],
        "audio_config": {
            "audio_embed_dim": FRAME_SAMPLES,
            "audio_samples_per_token": FRAME_SAMPLES,
            "hidden_size": FRAME_SAMPLES,
            "initializer_range": 0.02,
            "model_type": "gemma4_unified_audio",
            "output_proj_dims": FRAME_SAMPLES,
            "rms_norm_eps": 1e-06,
        },
        "audio_token_id": SPECIAL_IDS["<|audio|>"],
        "boa_token_id": SPECIAL_IDS["<|audio>"],
        "boi_token_id": SPECIAL_IDS["<|image>"],
        "dtype": "bfloat16",
        "eoa_token_index": SPECIAL_IDS["<audio|>"],
        "eoi_token_id": SPECIAL_IDS["<image|>"],
        "eos_token_id": [SPECIAL_IDS["<eos>"], SPECIAL_IDS["<turn|>"]],
        "image_token_id": SPECIAL_IDS["<|image|>"],
        "initializer_range": 0.02,
        "model_type": "gemma4_unified",
        "text_config": text,
        "tie_word_embeddings": True,
        "transformers_version": "5.10.0.dev0",
        "video_token_id": SPECIAL_IDS["<|video|>"],
        "vision_config": {
            "mm_embed_dim": HIDDEN,
            "mm_posemb_size": POSITION_ROWS,
            "model_patch_size": PATCH_PX,
            "model_type": "gemma4_unified_vision",
            "num_soft_tokens": 70,
            "output_proj_dims": HIDDEN,
            "patch_size": 16,
            "pooling_kernel_size": 3,
            "rms_norm_eps": 1e-06,
        },
    }


def build_model(vocab_size: int, seed: int) -> Any:
    """An untrained float32 model whose first weights suit a short training (see the helpers below)."""
    torch.manual_seed(seed)
    config = Gemma4UnifiedConfig.from_dict(released_config(vocab_size))
    config._attn_implementation = "sdpa"
    model: Any = Gemma4UnifiedForConditionalGeneration(config)
    model.to(torch.float32)
    rng = np.random.default_rng(seed)
    with torch.no_grad():
        _init_text(model.model.language_model)
        _init_vision(model.model.embed_vision, rng)
        projection = model.model.embed_audio.embedding_projection.weight
        projection.copy_(torch.from_numpy(audio_filters(projection.shape[0])))
    model.tie_weights()
    return model


def _init_text(text: Any) -> None:
    """Unit-variance stream, matrices at 1/sqrt(fan-in), attention logits near unit variance at scale 1.0."""
    for name, parameter in text.named_parameters():
        if name.endswith(("q_norm.weight", "k_norm.weight")):
            parameter.fill_(1.4 * parameter.numel() ** -0.25)
        elif "post_" in name:
            parameter.fill_(0.4)
        elif parameter.ndim == 2:
            parameter.normal_(std=parameter.shape[1] ** -0.5)
    for layer, scalar in zip(text.layers, LAYER_SCALARS, strict=True):
        layer.layer_scalar.fill_(scalar)


def _init_vision(embedder: Any, rng: np.random.Generator) -> None:
    """Low spatial frequencies as first patch features; smooth position rows with a spread near 0.5."""
    embedder.patch_dense.weight.copy_(torch.from_numpy(patch_filters(HIDDEN, rng)))
    embedder.patch_dense.bias.zero_()
    # Frozen in training (patch_dense can absorb them), but not trivial, so that a reader must apply them.
    embedder.patch_ln1.weight.copy_(torch.from_numpy(rng.uniform(0.9, 1.1, 6912).astype(np.float32)))
    embedder.patch_ln1.bias.copy_(torch.from_numpy(rng.uniform(-0.02, 0.02, 6912).astype(np.float32)))
    for axis in (0, 1):
        rows = position_rows(POSITION_ROWS, HIDDEN, rng)
        embedder.pos_embedding[:, axis].copy_(torch.from_numpy(rows))
    embedder.multimodal_embedder.embedding_projection.weight.normal_(std=HIDDEN**-0.5)


def patch_filters(count: int, rng: np.random.Generator) -> np.ndarray:
    """[count, 6912] cosine filters over a 48 px patch: three quarters luminance, the rest two colour differences."""
    steps = (np.arange(PATCH_PX) + 0.5) / PATCH_PX
    order = sorted(((u, v) for u in range(16) for v in range(16)), key=lambda p: (p[0] ** 2 + p[1] ** 2, p))
    colours = np.array([[1, 1, 1], [1, -1, 0], [0.5, 0.5, -1]], dtype=np.float64)
    luminance = count * 3 // 4
    plan = [(uv, 0) for uv in order[1 : luminance + 1]]
    plan += [(uv, 1 + i % 2) for i, uv in enumerate(np.repeat(np.array(order), 2, axis=0)[: count - luminance])]
    rows = []
    for (u, v), colour in plan:
        wave = np.outer(np.cos(math.pi * v * steps), np.cos(math.pi * u * steps))
        row = (wave[..., None] * colours[colour]).reshape(-1)
        gain = (1.0 + 0.5 * math.hypot(u, v)) / 15.0
        rows.append(gain * row / np.linalg.norm(row))
    filters = np.stack(rows) + rng.normal(0, 2e-4, (count, PATCH_PX * PATCH_PX * 3))
    return filters.astype(np.float32)


def position_rows(rows: int, width: int, rng: np.random.Generator) -> np.ndarray:
    """[rows, width] smooth positions: sines from one turn per 4 rows to one per 128, mixed at random."""
    periods = np.geomspace(4, 128, 12)
    angles = 2 * math.pi * np.arange(rows)[:, None] / periods
    waves = np.concatenate([np.sin(angles), np.cos(angles)], axis=1)  # [rows, 24]
    mix = rng.normal(0, 1, (waves.shape[1], width)) * 0.5 / math.sqrt(len(periods))
    return (waves @ mix).astype(np.float32)


def audio_filters(count: int) -> np.ndarray:
    """[count, 640] sine and cosine windows: 40 mel-spaced bands in each half frame, the lowest 16 in the whole."""

    def bands(number: int, low_hz: float, high_hz: float) -> np.ndarray:
        mel = np.linspace(math.log1p(low_hz / 700), math.log1p(high_hz / 700), number)
        return np.asarray(700 * np.expm1(mel))

    half = FRAME_SAMPLES // 2
    plan = [(hz, start, half) for start in (0, half) for hz in bands(count // 5 + 2, 90, 6500)]
    plan = plan[: 5 * count // 12]
    plan += [(hz, 0, FRAME_SAMPLES) for hz in bands(count // 2 - len(plan), 70, 1200)]
    rows = []
    for hz, start, length in plan:
        time_s = np.arange(length) / SAMPLE_RATE_HZ
        window = np.hanning(length)
        for phase in (0.0, math.pi / 2):
            row = np.zeros(FRAME_SAMPLES)
            row[start : start + length] = window * np.cos(2 * math.pi * hz * time_s + phase)
            rows.append(row / np.linalg.norm(row))
    return np.stack(rows).astype(np.float32)
