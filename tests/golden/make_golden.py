"""Makes the golden outputs of the reference: transformers in float32 on a tiny random model.

    python -m tests.golden.make_golden

writes, next to itself,

    tiny/config.json, tiny/model.safetensors    the model, in the released spelling, bfloat16
    tiny_resaved_config.json                    the same configuration as newer transformers write it
    cases.safetensors                           inputs and outputs of each case, by "case/array"; versions: metadata

The masks are those of `create_masks_for_vision_model` (full layers causal, sliding layers causal or same image, within
the window), handed over ready: `forward` on its own would let images see ahead on the full layers too.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from numpy.typing import NDArray
from safetensors.torch import save_file
from transformers import Gemma4UnifiedConfig, Gemma4UnifiedForConditionalGeneration
from transformers.models.gemma4_unified.modeling_gemma4_unified import (
    create_masks_for_vision_model,
    get_block_sequence_ids_for_mask,
)

HERE = Path(__file__).parent
SEED = 11
IMAGE, AUDIO, VIDEO = 120, 121, 122
BOI, EOI, BOA, EOA = 123, 124, 125, 126
QUERY_KEY_SCALE = 0.6
"""Mean weight of q_norm and k_norm. Attention is not scaled: with 1, its scores reach 20, and the float32 reference is
itself 2e-4 away from float64 in its logits."""
SLIDING_LAYER, FULL_LAYER = 0, 5
"""The layers whose input and output are stored."""

Arrays = dict[str, NDArray[Any]]


@dataclass(frozen=True)
class Picture:
    """A grid of patches; `token` says whether it is an image or a frame of a video."""

    columns: int
    rows: int
    token: int = IMAGE


@dataclass(frozen=True)
class Sound:
    frames: int


Part = int | Picture | Sound
"""An int is that many tokens of text."""

CASES: dict[str, list[Part]] = {
    "text": [45],
    "image": [5, Picture(3, 2), 19],
    "image_wider_than_window": [6, Picture(5, 4), 9],
    "audio": [4, Sound(12), 9],
    "image_and_audio": [3, Picture(4, 3), 4, Sound(5), 8],
    "several_images": [2, Picture(1, 1), Picture(4, 2), 11, Picture(2, 6), 5],
    "video": [3, Picture(3, 2, VIDEO), 2, Picture(3, 2, VIDEO), 7],
}
GREEDY_CASES: dict[str, list[Part]] = {"greedy_text": [5], "greedy_image": [4, Picture(3, 3), 4]}
GREEDY_TOKENS = 64
INPUT_SEEDS = {name: seed for seed, name in enumerate(CASES)} | {"greedy_text": 6, "greedy_image": 2}
"""With these two, the best token is always ahead of the second by 0.005 or more, so that rounding cannot decide."""


def reference_config(**text: Any) -> Gemma4UnifiedConfig:
    """A tiny configuration, with what `text` changes in the decoder's."""
    hidden = text.get("hidden_size", 64)
    decoder = {
        "vocab_size": 128,
        "hidden_size": hidden,
        "intermediate_size": 96,
        "num_hidden_layers": 12,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 16,
        "global_head_dim": 32,
        "num_global_key_value_heads": 1,
        "attention_k_eq_v": True,
        "sliding_window": 8,
        "max_position_embeddings": 4096,
        "final_logit_softcapping": 30.0,
        "eos_token_id": 1,
    }
    return Gemma4UnifiedConfig(
        text_config=decoder | text,
        vision_config={
            "patch_size": 4,
            "pooling_kernel_size": 3,
            "mm_embed_dim": 48,
            "output_proj_dims": 48,
            "mm_posemb_size": 16,
        },
        audio_config={"audio_embed_dim": 40},
        image_token_id=IMAGE,
        audio_token_id=AUDIO,
        video_token_id=VIDEO,
        boi_token_id=BOI,
        eoi_token_id=EOI,
        boa_token_id=BOA,
        eoa_token_index=EOA,
    )


def make_reference(seed: int, config: Gemma4UnifiedConfig) -> Any:
    """The reference with random weights that bfloat16 holds exactly, computing in float32."""
    random = torch.Generator().manual_seed(seed)
    model = Gemma4UnifiedForConditionalGeneration(config).eval().float()
    with torch.no_grad():
        for name, tensor in model.state_dict().items():
            if name == "lm_head.weight":
                continue  # tied to the token table
            noise = torch.randn(tensor.shape, generator=random)
            if name.endswith(("q_norm.weight", "k_norm.weight")):
                noise = QUERY_KEY_SCALE * (1 + 0.2 * noise)
            elif name.endswith(("norm.weight", "ln1.weight", "ln2.weight", "layer_scalar")):
                noise = 1 + 0.2 * noise
            elif tensor.dim() > 1:
                noise = noise * tensor.shape[-1] ** -0.5
            else:
                noise = 0.1 * noise
            tensor.copy_(noise.bfloat16())
    return model


def released_tensors(model: Any) -> dict[str, torch.Tensor]:
    """The weights by the names that Google's checkpoint uses, in bfloat16."""
    tensors = {}
    for name, tensor in model.state_dict().items():
        if name == "lm_head.weight":
            continue
        name = name.replace("model.embed_vision.", "model.vision_embedder.")
        name = name.replace("model.vision_embedder.multimodal_embedder.", "model.embed_vision.")
        tensors[name] = tensor.bfloat16().contiguous()
    return tensors


def released_config(config: Gemma4UnifiedConfig) -> dict[str, Any]:
    """config.json as Google's checkpoint spells it."""
    data: dict[str, Any] = json.loads(config.to_json_string(use_diff=False))
    text, vision, audio = data["text_config"], data["vision_config"], data["audio_config"]
    full = text.pop("per_layer_config")
    shape = next(iter(full.values()))
    text |= {
        "global_head_dim": shape["head_dim"],
        "num_global_key_value_heads": shape.get("num_key_value_heads", text["num_key_value_heads"]),
        "enable_moe_block": False,
        "hidden_size_per_layer_input": 0,
        "moe_intermediate_size": None,
        "num_experts": None,
        "top_k_experts": None,
        "vocab_size_per_layer_input": text["vocab_size"],
    }
    vision |= {"model_patch_size": vision["patch_size"] * vision["pooling_kernel_size"], "num_soft_tokens": 20}
    for name in ("audio_samples_per_token", "hidden_size", "output_proj_dims"):
        audio[name] = audio["audio_embed_dim"]
    data |= {"architectures": ["Gemma4UnifiedForConditionalGeneration"], "dtype": "bfloat16", "eos_token_id": [1, 106]}
    return data


def make_inputs(parts: list[Part], seed: int) -> Arrays:
    """Ids and media of one prompt. `media` [M, 3] holds (token, start, soft tokens) of each picture or sound in order.

    Patches are stored as the bytes of the picture, frames of sound as float32.
    """
    random = np.random.default_rng(seed)
    ids: list[int] = [2]
    media: list[tuple[int, int, int]] = []
    arrays: Arrays = {}
    for part in parts:
        if isinstance(part, int):
            ids += random.integers(3, 120, part).tolist()
            continue
        token, count = (part.token, part.columns * part.rows) if isinstance(part, Picture) else (AUDIO, part.frames)
        opening, closing = (BOI, EOI) if isinstance(part, Picture) else (BOA, EOA)
        media.append((token, len(ids) + 1, count))
        index = len(media) - 1
        ids += [opening, *[token] * count, closing]
        if isinstance(part, Picture):
            arrays[f"patches_{index}"] = random.integers(0, 256, (count, 432), dtype=np.uint8)
            grid = [(x, y) for y in range(part.rows) for x in range(part.columns)]
            arrays[f"positions_{index}"] = np.array(grid, np.int32)
        else:
            arrays[f"frames_{index}"] = random.standard_normal((count, 40)).astype(np.float32)
    arrays["ids"] = np.array(ids, np.int32)
    arrays["media"] = np.array(media, np.int32).reshape(-1, 3)
    return arrays


def reference_inputs(arrays: Arrays) -> dict[str, torch.Tensor]:
    """What transformers' processors would make of `arrays`."""
    ids = torch.tensor(arrays["ids"]).long()[None]
    found: dict[str, torch.Tensor] = {"input_ids": ids}
    kinds = {IMAGE: 1, VIDEO: 2, AUDIO: 3}
    found["mm_token_type_ids"] = sum((ids == token).int() * kind for token, kind in kinds.items())
    media = enumerate(arrays["media"].tolist())
    of_token: dict[int, list[int]] = {token: [] for token in kinds}
    for index, (token, _, _) in media:
        of_token[token].append(index)
    for token, patches_name, positions_name in (
        (IMAGE, "pixel_values", "image_position_ids"),
        (VIDEO, "pixel_values_videos", "video_position_ids"),
    ):
        if indices := of_token[token]:
            patches = [torch.tensor(arrays[f"patches_{i}"]).float() / 255 for i in indices]
            positions = [torch.tensor(arrays[f"positions_{i}"]).long() for i in indices]
            pad = torch.nn.utils.rnn.pad_sequence
            found[patches_name] = pad(patches, batch_first=True)
            found[positions_name] = pad(positions, batch_first=True, padding_value=-1)
    if of_token[VIDEO]:
        found["num_frames_per_video"] = torch.tensor([len(of_token[VIDEO])])
    if of_token[AUDIO]:
        found["input_features"] = torch.cat([torch.tensor(arrays[f"frames_{i}"]) for i in of_token[AUDIO]])[None]
        found["input_features_mask"] = torch.ones(found["input_features"].shape[:2], dtype=torch.bool)
    return found


def vision_masks(model: Any, kinds: torch.Tensor) -> dict[str, torch.Tensor]:
    """The masks for a cold pass over tokens of `kinds` [1, L] (1 image, 2 video, 3 audio, 0 text)."""
    length, text = kinds.shape[1], model.config.text_config
    return create_masks_for_vision_model(
        text,
        torch.zeros(1, length, text.hidden_size),
        None,
        None,
        torch.arange(length)[None],
        get_block_sequence_ids_for_mask(kinds, torch.device("cpu")),
    )


def run_case(model: Any, arrays: Arrays) -> Arrays:
    """The reference's outputs for the prompt in `arrays`, stage by stage, in one cold pass."""
    inputs = reference_inputs(arrays)
    masks = vision_masks(model, inputs.pop("mm_token_type_ids"))
    stages: dict[str, torch.Tensor] = {}
    watched = {
        "embeddings": (SLIDING_LAYER, 0),
        "sliding_layer": (SLIDING_LAYER, 1),
        "full_layer_input": (FULL_LAYER, 0),
        "full_layer": (FULL_LAYER, 1),
    }
    layers, hooks = model.model.language_model.layers, []
    for name, (index, side) in watched.items():
        hooks.append(layers[index].register_forward_hook(_keep(stages, name, side)))
    hooks.append(model.model.language_model.norm.register_forward_hook(_keep(stages, "hidden", 1)))
    with torch.no_grad():
        stages["logits"] = model(**inputs, attention_mask=masks).logits
    for hook in hooks:
        hook.remove()
    return {name: stage[0].numpy() for name, stage in stages.items()}


def _keep(stages: dict[str, torch.Tensor], name: str, side: int) -> Callable[..., None]:
    """A hook that keeps a module's input (side 0) or output (side 1)."""

    def hook(_: object, inputs: tuple[torch.Tensor, ...], output: torch.Tensor) -> None:
        stages[name] = (output if side else inputs[0]).detach().clone()

    return hook


def cached_logits(model: Any, arrays: Arrays, prefill: int) -> NDArray[Any]:
    """The reference's logits for text `arrays` with its own cache: `prefill` tokens at once, then one by one."""
    ids = torch.tensor(arrays["ids"]).long()[None]
    cache, found = None, []
    with torch.no_grad():
        for start, stop in [(0, prefill), *((i, i + 1) for i in range(prefill, ids.shape[1]))]:
            output = model(input_ids=ids[:, start:stop], past_key_values=cache, use_cache=True)
            cache = output.past_key_values
            found.append(output.logits[0])
    return torch.cat(found).numpy()


def greedy_ids(model: Any, arrays: Arrays) -> Arrays:
    """What the reference says after the prompt, greedily, with its own cache; `margins` are best minus second best.

    Not `generate`, which lets an image see ahead on the full layers too; without an image it says the same
    (`tests/reference/test_live.py`).
    """
    inputs = reference_inputs(arrays)
    inputs["attention_mask"] = vision_masks(model, inputs.pop("mm_token_type_ids"))
    cache, said, margins = None, [], []
    with torch.no_grad():
        for _ in range(GREEDY_TOKENS):
            output = model(**inputs, past_key_values=cache, use_cache=True)
            best = output.logits[0, -1].topk(2)
            said.append(int(best.indices[0]))
            margins.append(float(best.values[0] - best.values[1]))
            cache, inputs = output.past_key_values, {"input_ids": best.indices[None, :1]}
    return {"greedy": np.array(said, np.int32), "margins": np.array(margins, np.float32)}


def make_cases(model: Any) -> Arrays:
    """Every array of cases.safetensors by "case/array"."""
    found: Arrays = {}
    for case, parts in (CASES | GREEDY_CASES).items():
        inputs = make_inputs(parts, INPUT_SEEDS[case])
        outputs = greedy_ids(model, inputs) if case in GREEDY_CASES else run_case(model, inputs)
        if case == "text":
            outputs["cached_logits"] = cached_logits(model, inputs, prefill=11)
        found |= {f"{case}/{name}": np.ascontiguousarray(array) for name, array in (inputs | outputs).items()}
    return found


def main() -> None:
    torch.set_num_threads(1)  # so small a model is many times slower on several
    model = make_reference(SEED, reference_config())
    tiny = HERE / "tiny"
    tiny.mkdir(exist_ok=True)
    save_file(released_tensors(model), tiny / "model.safetensors", metadata={"format": "pt"})
    (tiny / "config.json").write_text(json.dumps(released_config(model.config), indent=1, sort_keys=True) + "\n")
    resaved = json.loads(model.config.to_json_string())
    (HERE / "tiny_resaved_config.json").write_text(json.dumps(resaved, indent=1, sort_keys=True) + "\n")
    cases = make_cases(model)
    versions = {"transformers": transformers.__version__, "torch": torch.__version__}
    save_file(
        {name: torch.tensor(array) for name, array in cases.items()}, HERE / "cases.safetensors", metadata=versions
    )
    for name in GREEDY_CASES:
        ids, margins = cases[f"{name}/greedy"], cases[f"{name}/margins"]
        print(name, len(set(ids.tolist())), "different ids, smallest margin", margins.min(), ids.tolist())


if __name__ == "__main__":
    main()
