"""Makes the golden outputs of the reference's drafter: transformers in float32, for the tiny random target.

    python -m tests.golden.make_drafts

writes, next to itself,

    drafters/dense, drafters/ordered    two drafters (config.json, model.safetensors), one for each kind of head
    drafts.safetensors                  the text that the target has read, and the drafts after each of `CONTEXTS`

transformers' own candidate generator does the drafting, each time from one cold pass of the target over the context.
From pass to pass it would also show the drafter keys of rejected tokens; there are none after a cold pass.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from numpy.typing import NDArray
from safetensors.torch import save_file
from transformers import Gemma4UnifiedAssistantConfig, Gemma4UnifiedAssistantForCausalLM, GenerationConfig
from transformers.generation.candidate_generator import SinglePositionMultiTokenCandidateGenerator

from assets.training.assistant import let_transformers_share
from tests.golden.make_golden import HERE, QUERY_KEY_SCALE, SEED, make_reference, reference_config

DRAFTER_SEED = 5
DEPTH = 3
WINDOW = 8
CONTEXTS = (1, 3, 4, 7, 8, 9, 10, 11, 13, 16, 17, 20, 40, 43, 72, 75, 77, 150, 152, 200)
"""Tokens that the target has read when a round begins: below, at and far beyond the window."""
HEADS: dict[str, dict[str, Any]] = {
    "dense": {},
    "ordered": {"use_ordered_embeddings": True, "num_centroids": 16, "centroid_intermediate_top_k": 3},
}


def drafter_config(head: dict[str, Any], target: Any, **text: Any) -> Gemma4UnifiedAssistantConfig:
    """A tiny configuration for `target`, with what `text` changes in the layers."""
    theirs = target.config.text_config.to_dict()
    full = next(iter(theirs.pop("per_layer_config").values()))
    shared = ("vocab_size", "head_dim", "num_key_value_heads", "sliding_window", "max_position_embeddings")
    layers = {
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 3,
        "layer_types": ["sliding_attention", "sliding_attention", "full_attention"],
        "num_attention_heads": 4,
        "global_head_dim": full["head_dim"],
        "num_global_key_value_heads": full.get("num_key_value_heads", theirs["num_key_value_heads"]),
        "attention_k_eq_v": True,
        "model_type": "gemma4_unified_text",
        **{name: theirs[name] for name in shared},
        **text,
    }
    layers["num_kv_shared_layers"] = layers["num_hidden_layers"]
    config: Gemma4UnifiedAssistantConfig = Gemma4UnifiedAssistantConfig.from_dict(
        {"text_config": layers, "backbone_hidden_size": theirs["hidden_size"], **head}
    )
    return config


def make_drafter(seed: int, config: Gemma4UnifiedAssistantConfig) -> Any:
    """The reference with random weights that bfloat16 holds exactly, computing in float32."""
    let_transformers_share()
    random = torch.Generator().manual_seed(seed)
    drafter = Gemma4UnifiedAssistantForCausalLM(config).eval().float()
    with torch.no_grad():
        for name, tensor in drafter.state_dict().items():
            if name == "lm_head.weight":
                continue  # tied to the token table
            if name.endswith("token_ordering"):
                tensor.copy_(torch.randperm(len(tensor), generator=random))
                continue
            noise = torch.randn(tensor.shape, generator=random)
            if name.endswith("q_norm.weight"):
                narrow = min(1.0, (32 / len(noise)) ** 0.5)  # wide heads have large scores: see QUERY_KEY_SCALE
                noise = narrow * QUERY_KEY_SCALE * (1 + 0.2 * noise)
            elif name.endswith(("norm.weight", "layer_scalar")):
                noise = 1 + 0.2 * noise
            else:
                noise = noise * tensor.shape[-1] ** -0.5
            tensor.copy_(noise.bfloat16())
    drafter.generation_config = GenerationConfig(num_assistant_tokens=DEPTH)
    return drafter


def write_drafter(drafter: Any, folder: Path) -> None:
    """Config and weights in the spelling of the released drafter."""
    folder.mkdir(parents=True, exist_ok=True)
    data = json.loads(drafter.config.to_json_string(use_diff=False))
    full = data["text_config"].pop("per_layer_config")
    shape = next(iter(full.values()))
    data["text_config"] |= {
        "global_head_dim": shape["head_dim"],
        "num_global_key_value_heads": shape.get("num_key_value_heads", data["text_config"]["num_key_value_heads"]),
    }
    (folder / "config.json").write_text(json.dumps(data, indent=1, sort_keys=True) + "\n")
    tensors = {
        name: tensor if tensor.dtype == torch.long else tensor.bfloat16().contiguous()
        for name, tensor in drafter.state_dict().items()
        if name != "lm_head.weight"
    }
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


def make_text(seed: int, tokens: int) -> NDArray[np.int32]:
    """The ids that the target reads."""
    ids: NDArray[np.int32] = np.random.default_rng(seed).integers(3, 120, tokens).astype(np.int32)
    ids[0] = 2
    return ids


@torch.no_grad()
def draft(target: Any, drafter: Any, ids: NDArray[np.int32]) -> dict[str, NDArray[Any]]:
    """A round of drafts after all but the last of `ids` have been read: `ids`, `logits` and `states`, a row each."""
    read = torch.tensor(ids[:-1]).long()[None]
    outputs = target(input_ids=read, output_hidden_states=True, return_shared_kv_states=True)
    generator = SinglePositionMultiTokenCandidateGenerator(
        drafter, target.get_input_embeddings(), GenerationConfig(max_length=1 << 20)
    )
    states: list[torch.Tensor] = []
    hook = drafter.post_projection.register_forward_hook(lambda _module, _inputs, output: states.append(output[0, 0]))
    found, logits = generator.get_candidates(
        torch.tensor(ids).long()[None],
        model_kwargs={},
        model_outputs=outputs,
        is_first_iteration=False,
        n_last_matches=0,
    )
    hook.remove()
    assert logits is not None
    return {
        "ids": found[0, len(ids) :].int().numpy(),
        "logits": logits[0].numpy(),
        "states": torch.stack(states).numpy(),
    }


def make_drafts(target: Any, drafters: dict[str, Any]) -> dict[str, NDArray[Any]]:
    """Every array of drafts.safetensors: "text", and "head/context/array"."""
    text = make_text(DRAFTER_SEED, max(CONTEXTS) + 1)
    found: dict[str, NDArray[Any]] = {"text": text}
    for head, drafter in drafters.items():
        for context in CONTEXTS:
            for name, array in draft(target, drafter, text[: context + 1]).items():
                found[f"{head}/{context}/{name}"] = array
    return found


def make_all() -> tuple[Any, dict[str, Any]]:
    """The tiny target and its drafters."""
    let_transformers_share()
    target = make_reference(SEED, reference_config())
    return target, {head: make_drafter(DRAFTER_SEED, drafter_config(HEADS[head], target)) for head in HEADS}


def main() -> None:
    torch.set_num_threads(1)
    target, drafters = make_all()
    for head, drafter in drafters.items():
        write_drafter(drafter, HERE / "drafters" / head)
    versions = {"transformers": transformers.__version__, "torch": torch.__version__}
    tensors = {name: torch.tensor(array) for name, array in make_drafts(target, drafters).items()}
    save_file(tensors, HERE / "drafts.safetensors", metadata=versions)


if __name__ == "__main__":
    main()
