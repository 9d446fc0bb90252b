"""Writes a checkpoint folder in the released format: `python -m assets.training.export` from the last checkpoint."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer

from assets.training.architecture import build_model, released_config
from assets.training.corpus import training_texts
from assets.training.sample import FRAME_SAMPLES, SAMPLE_RATE_HZ
from assets.training.tokenizer import SPECIAL_IDS, build_tokenizer

SOFT_TOKENS = 70
# Module names in transformers -> names in released files; the longer prefix first.
RENAMED = (
    ("model.embed_vision.multimodal_embedder.", "model.embed_vision."),
    ("model.embed_vision.", "model.vision_embedder."),
)


def released_tensors(model: Any) -> dict[str, torch.Tensor]:
    """bfloat16 tensors under the names of released files; the head is tied and left out."""
    tensors = {}
    for name, tensor in model.state_dict().items():
        if name == "lm_head.weight":
            continue
        for module, released in RENAMED:
            if name.startswith(module):
                name = released + name.removeprefix(module)
                break
        tensors[name] = tensor.detach().to(torch.bfloat16).contiguous()
    return tensors


def tokenizer_config() -> dict[str, Any]:
    """tokenizer_config.json with the token roles of the released model."""
    return {
        "audio_token": "<|audio|>",
        "backend": "tokenizers",
        "boa_token": "<|audio>",
        "boi_token": "<|image>",
        "bos_token": "<bos>",
        "eoa_token": "<audio|>",
        "eoc_token": "<channel|>",
        "eoi_token": "<image|>",
        "eos_token": "<eos>",
        "eot_token": "<turn|>",
        "escape_token": '<|"|>',
        "etc_token": "<tool_call|>",
        "etd_token": "<tool|>",
        "etr_token": "<tool_response|>",
        "extra_special_tokens": ["<|video|>"],
        "image_token": "<|image|>",
        "mask_token": "<mask>",
        "model_max_length": 8192,
        "pad_token": "<pad>",
        "padding_side": "left",
        "processor_class": "Gemma4UnifiedProcessor",
        "soc_token": "<|channel>",
        "sot_token": "<|turn>",
        "stc_token": "<|tool_call>",
        "std_token": "<|tool>",
        "str_token": "<|tool_response>",
        "think_token": "<|think|>",
        "tokenizer_class": "GemmaTokenizer",
        "unk_token": "<unk>",
    }


def processor_config() -> dict[str, Any]:
    """processor_config.json: the released one with a default of 70 soft tokens to a picture."""
    pixels = {
        "do_convert_rgb": True,
        "do_rescale": True,
        "do_resize": True,
        "image_mean": [0.0, 0.0, 0.0],
        "image_std": [1.0, 1.0, 1.0],
        "max_soft_tokens": SOFT_TOKENS,
        "patch_size": 16,
        "pooling_kernel_size": 3,
        "resample": 3,
        "rescale_factor": 1 / 255,
    }
    return {
        "audio_ms_per_token": 40,
        "audio_seq_length": 750,
        "feature_extractor": {
            "audio_samples_per_token": FRAME_SAMPLES,
            "feature_extractor_type": "Gemma4UnifiedAudioFeatureExtractor",
            "feature_size": FRAME_SAMPLES,
            "padding_side": "right",
            "padding_value": 0.0,
            "return_attention_mask": True,
            "sampling_rate": SAMPLE_RATE_HZ,
        },
        "image_processor": {**pixels, "do_normalize": False, "image_processor_type": "Gemma4UnifiedImageProcessor"},
        "image_seq_length": SOFT_TOKENS,
        "processor_class": "Gemma4UnifiedProcessor",
        "video_processor": {
            **pixels,
            "do_normalize": True,
            "do_sample_frames": True,
            "num_frames": 32,
            "return_metadata": False,
            "video_processor_type": "Gemma4UnifiedVideoProcessor",
        },
    }


def generation_config() -> dict[str, Any]:
    """generation_config.json: greedy, with the stop and suppressed tokens of the released one."""
    return {
        "bos_token_id": SPECIAL_IDS["<bos>"],
        "do_sample": False,
        "eos_token_id": [SPECIAL_IDS[t] for t in ("<eos>", "<turn|>", "<|tool_response>")],
        "pad_token_id": SPECIAL_IDS["<pad>"],
        "suppress_tokens": [SPECIAL_IDS["<audio|>"], SPECIAL_IDS["<image|>"]],
        "transformers_version": "5.10.0.dev0",
    }


def write_folder(model: Any, tokenizer: Tokenizer, out: Path) -> None:
    """Config, weights, tokenizer and processor files; the chat template lies in `out` already, written by hand."""
    out.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(out / "tokenizer.json"))
    for name, content in (
        ("config.json", released_config(tokenizer.get_vocab_size())),
        ("tokenizer_config.json", tokenizer_config()),
        ("processor_config.json", processor_config()),
        ("generation_config.json", generation_config()),
    ):
        (out / name).write_text(json.dumps(content, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    partial = out / "model.safetensors.partial"
    save_file(released_tensors(model), partial, metadata={"format": "pt"})
    partial.chmod(0o644)
    partial.replace(out / "model.safetensors")


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("assets/miniature"))
    parser.add_argument("--work", type=Path, default=Path("build/miniature"))
    arguments = parser.parse_args()
    tokenizer = build_tokenizer(training_texts())
    model = build_model(tokenizer.get_vocab_size(), seed=0)
    state = torch.load(arguments.work / "checkpoint.pt", weights_only=True)
    model.load_state_dict(state["model"])
    write_folder(model, tokenizer, arguments.out)
    print(f"step {state['progress']['step']} -> {arguments.out}")


if __name__ == "__main__":
    main()
