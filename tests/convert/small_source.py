"""A checkpoint of two layers in the released format, small enough to convert in a blink, wide enough to be packed."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import mlx.core as mx

from gemma_mlx.home import miniature_folder

HIDDEN, HEADS, HEAD_DIM, INNER, VOCAB, PATCH, FRAME = 64, 4, 32, 128, 256, 48, 40
FULL_DIM = 2 * HEAD_DIM

CONFIG = {
    "architectures": ["Gemma4UnifiedForConditionalGeneration"],
    "model_type": "gemma4_unified",
    "dtype": "bfloat16",
    "image_token_id": 250,
    "audio_token_id": 251,
    "video_token_id": 252,
    "eos_token_id": [1, 106],
    "tie_word_embeddings": True,
    "text_config": {
        "model_type": "gemma4_unified_text",
        "vocab_size": VOCAB,
        "hidden_size": HIDDEN,
        "intermediate_size": INNER,
        "num_hidden_layers": 2,
        "num_attention_heads": HEADS,
        "num_key_value_heads": 2,
        "head_dim": HEAD_DIM,
        "global_head_dim": FULL_DIM,
        "num_global_key_value_heads": 1,
        "attention_k_eq_v": True,
        "layer_types": ["sliding_attention", "full_attention"],
        "sliding_window": 8,
        "max_position_embeddings": 1024,
        "rms_norm_eps": 1e-6,
        "final_logit_softcapping": 30.0,
        "use_bidirectional_attention": "vision",
        "pad_token_id": 0,
    },
    "vision_config": {"patch_size": 4, "pooling_kernel_size": 1, "mm_embed_dim": HIDDEN, "mm_posemb_size": 16},
    "audio_config": {"audio_embed_dim": FRAME},
}

TEXT_SIDE = (
    "tokenizer.json",
    "tokenizer_config.json",
    "chat_template.jinja",
    "processor_config.json",
    "generation_config.json",
)


def _layer_shapes(kind: str) -> dict[str, tuple[int, ...]]:
    full = kind == "full_attention"
    width, key_rows = (FULL_DIM, FULL_DIM) if full else (HEAD_DIM, 2 * HEAD_DIM)
    norms = "input_layernorm post_attention_layernorm pre_feedforward_layernorm post_feedforward_layernorm"
    shapes: dict[str, tuple[int, ...]] = {f"{norm}.weight": (HIDDEN,) for norm in norms.split()}
    shapes |= {
        "layer_scalar": (1,),
        "mlp.gate_proj.weight": (INNER, HIDDEN),
        "mlp.up_proj.weight": (INNER, HIDDEN),
        "mlp.down_proj.weight": (HIDDEN, INNER),
        "self_attn.q_proj.weight": (HEADS * width, HIDDEN),
        "self_attn.k_proj.weight": (key_rows, HIDDEN),
        "self_attn.o_proj.weight": (HIDDEN, HEADS * width),
        "self_attn.q_norm.weight": (width,),
        "self_attn.k_norm.weight": (width,),
    }
    return shapes if full else shapes | {"self_attn.v_proj.weight": (key_rows, HIDDEN)}


def source_tensors() -> dict[str, mx.array]:
    """Random bfloat16 tensors under the names that Google released."""
    shapes: dict[str, tuple[int, ...]] = {"language_model.embed_tokens.weight": (VOCAB, HIDDEN)}
    for i, kind in enumerate(("sliding_attention", "full_attention")):
        shapes |= {f"language_model.layers.{i}.{name}": shape for name, shape in _layer_shapes(kind).items()}
    shapes |= {
        "language_model.norm.weight": (HIDDEN,),
        "vision_embedder.patch_ln1.weight": (PATCH,),
        "vision_embedder.patch_ln1.bias": (PATCH,),
        "vision_embedder.patch_dense.weight": (HIDDEN, PATCH),
        "vision_embedder.patch_dense.bias": (HIDDEN,),
        "vision_embedder.patch_ln2.weight": (HIDDEN,),
        "vision_embedder.patch_ln2.bias": (HIDDEN,),
        "vision_embedder.pos_embedding": (16, 2, HIDDEN),
        "vision_embedder.pos_norm.weight": (HIDDEN,),
        "vision_embedder.pos_norm.bias": (HIDDEN,),
        "embed_vision.embedding_projection.weight": (HIDDEN, HIDDEN),
        "embed_audio.embedding_projection.weight": (HIDDEN, FRAME),
    }
    keys = mx.random.split(mx.random.key(7), len(shapes))
    return {
        f"model.{name}": mx.random.normal(shape, key=key).astype(mx.bfloat16)
        for (name, shape), key in zip(shapes.items(), keys, strict=True)
    }


def write_source(folder: Path, tensors: dict[str, mx.array] | None = None) -> Path:
    """Writes the checkpoint, or another with these `tensors`, into the new `folder`."""
    folder.mkdir()
    mx.save_safetensors(str(folder / "model.safetensors"), tensors or source_tensors())
    (folder / "config.json").write_text(json.dumps(CONFIG))
    for name in TEXT_SIDE:
        shutil.copyfile(miniature_folder() / name, folder / name)
    return folder
