"""Makes the golden adapters: trained on the tiny model by mlx-lm and by PEFT, with what the trainers' models answer.

    python -m tests.golden.make_adapters

writes, in `adapters/` next to itself, a folder for each adapter as its trainer saves it, and logits.safetensors: the
logits in float32 of "text" (mlx-lm, which has no eyes) or "image_and_audio" (PEFT) in cases.safetensors, by adapter.
"qlora" is trained on the tiny model at 4 bit in groups of 32.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from pathlib import Path
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import mlx.optimizers
import mlx_lm
import numpy as np
import peft
import torch
import transformers
from mlx_lm.tuner.trainer import TrainingArgs, train
from mlx_lm.tuner.utils import linear_to_lora_layers
from mlx_lm.utils import load_model, save_config

from tests.golden.cases import HERE, TINY, load_cases
from tests.golden.make_golden import Arrays, reference_inputs, run_case, vision_masks

ADAPTERS = HERE / "adapters"
LAYER_KEYS = [
    *(f"self_attn.{name}_proj" for name in "qkvo"),
    *(f"mlp.{name}_proj" for name in ("gate", "up", "down")),
]
MLX_LM: dict[str, dict[str, Any]] = {
    "lora": {"fine_tune_type": "lora", "keys": [*LAYER_KEYS, "language_model.model.embed_tokens"]},
    "dora": {"fine_tune_type": "dora", "keys": [*LAYER_KEYS, "language_model.model.embed_tokens"]},
    "qlora": {"fine_tune_type": "lora", "keys": LAYER_KEYS},
    "full": {"fine_tune_type": "full"},
}
PEFT: dict[str, dict[str, Any]] = {
    "peft_dora": {"target_modules": "all-linear", "use_dora": True},
    "peft_rslora": {
        "target_modules": r".*language_model.*\.(q_proj|k_proj|o_proj|down_proj)",
        "use_rslora": True,
        "rank_pattern": {r"layers\.(5|11)\.self_attn\.q_proj": 3},
        "alpha_pattern": {"o_proj": 5},
        "modules_to_save": ["input_layernorm"],
    },
}
STEPS = 4


def text_twin(folder: Path, vocab_size: int, source: Path = TINY) -> Path:
    """Writes the model in `source` as mlx-lm wants it: its eyes and ears are left out there."""
    shutil.copytree(source, folder, ignore=shutil.ignore_patterns("drafter"))
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"vocab_size": vocab_size}))
    return folder


def mlx_lm_logits(name: str, twin: Path, ids: list[int]) -> np.ndarray[Any, Any]:
    """Trains the adapter `name` with mlx-lm into its folder; the logits of the trained model for `ids`."""
    folder, options = ADAPTERS / name, dict(MLX_LM[name])
    folder.mkdir(parents=True)
    model, _ = load_model(twin)
    if name == "qlora":
        nn.quantize(model, group_size=32, bits=4)
    if name != "full":
        model.set_dtype(mx.float32)
    mx.random.seed(0)
    model.freeze()
    kind, parameters = options["fine_tune_type"], None
    layers = 1 if kind == "full" else 2
    if kind == "full":
        model.layers[-1].unfreeze()
    else:
        parameters = {"rank": 3, "dropout": 0.0, "scale": 2.0, "keys": options["keys"]}
        linear_to_lora_layers(model, layers, parameters, use_dora=kind == "dora")
    described = {"fine_tune_type": kind, "lora_parameters": parameters, "model": "tiny", "num_layers": layers}
    save_config(described, folder / "adapter_config.json")
    random = np.random.default_rng(1)
    data = [(random.integers(3, 120, 20).tolist(), 0) for _ in range(4)]
    arguments = TrainingArgs(
        batch_size=2, iters=STEPS, val_batches=1, adapter_file=folder / "adapters.safetensors", steps_per_save=1000
    )
    train(model, mlx.optimizers.Adam(learning_rate=1e-2), data, data, args=arguments)
    model.eval()
    model.set_dtype(mx.float32)
    return np.array(model(mx.array([ids]))[0])


def peft_logits(name: str, arrays: Arrays) -> np.ndarray[Any, Any]:
    """Trains the adapter `name` with PEFT into its folder; the logits of the trained model for the case `arrays`."""
    torch.manual_seed(0)
    model = transformers.Gemma4UnifiedForConditionalGeneration.from_pretrained(TINY, dtype=torch.float32)
    adapted = peft.get_peft_model(model, peft.LoraConfig(r=2, lora_alpha=6, **PEFT[name]))
    optimizer = torch.optim.Adam([weight for weight in adapted.parameters() if weight.requires_grad], 1e-2)
    inputs = reference_inputs(arrays)
    labels = inputs["input_ids"]
    inputs["attention_mask"] = vision_masks(model, inputs.pop("mm_token_type_ids"))
    for _ in range(STEPS):
        logits = adapted.base_model.model(**inputs).logits
        torch.nn.functional.cross_entropy(logits[0, :-1], labels[0, 1:]).backward()
        optimizer.step()
        optimizer.zero_grad()
    adapted.save_pretrained(ADAPTERS / name)
    config = json.loads((ADAPTERS / name / "adapter_config.json").read_text()) | {"base_model_name_or_path": "tiny"}
    (ADAPTERS / name / "adapter_config.json").write_text(json.dumps(config, indent=1, sort_keys=True) + "\n")
    (ADAPTERS / name / "README.md").unlink()  # an empty model card
    return run_case(adapted.eval().base_model.model, arrays)["logits"]


def main() -> None:
    torch.set_num_threads(1)
    shutil.rmtree(ADAPTERS, ignore_errors=True)
    cases = load_cases()
    logits = {}
    with tempfile.TemporaryDirectory() as folder:
        twin = text_twin(Path(folder) / "twin", 128)
        for name in MLX_LM:
            logits[name] = mlx_lm_logits(name, twin, cases["text"].ids)
    arrays = {name: np.array(array) for name, array in cases["image_and_audio"].arrays.items()}
    for name in PEFT:
        logits[name] = peft_logits(name, arrays)
    versions = {"mlx-lm": mlx_lm.__version__, "peft": peft.__version__, "transformers": transformers.__version__}
    stored = {name: mx.array(array) for name, array in logits.items()}
    mx.save_safetensors(str(ADAPTERS / "logits.safetensors"), stored, metadata=versions)


if __name__ == "__main__":
    main()
