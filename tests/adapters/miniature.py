"""An adapter for the miniature whose numbers are drawn: what it says does not matter, that it is used does."""

from __future__ import annotations

import json
from pathlib import Path

import mlx.core as mx

from gemma_mlx.config import read_config
from gemma_mlx.home import miniature_folder
from gemma_mlx.model.gemma4 import Gemma4

RANK = 4


def write_adapter(folder: Path, seed: int = 0) -> Path:
    """An adapter over every projection of the decoder, as mlx-lm writes it, in the new `folder`."""
    shapes = Gemma4(read_config(miniature_folder())).shapes()
    modules = [name.removesuffix(".weight") for name in shapes if name.endswith("_proj.weight")]
    keys = iter(mx.random.split(mx.random.key(seed), 2 * len(modules)))
    tensors = {}
    for module in modules:
        rows, columns = shapes[f"{module}.weight"]
        stored = module.replace("language_model.", "language_model.model.")
        tensors[f"{stored}.lora_a"] = mx.random.normal((columns, RANK), key=next(keys)) * columns**-0.5
        tensors[f"{stored}.lora_b"] = mx.random.normal((RANK, rows), key=next(keys)) * 0.3
    folder.mkdir()
    mx.save_safetensors(str(folder / "adapters.safetensors"), tensors)
    config = {"fine_tune_type": "lora", "lora_parameters": {"rank": RANK, "scale": 4.0, "dropout": 0.1}}
    (folder / "adapter_config.json").write_text(json.dumps(config))
    return folder
