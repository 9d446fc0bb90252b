"""The golden adapters, the folders that they were trained on, and models under them: loaded, and fused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
from numpy.typing import NDArray

from convert.fuse import fuse
from convert.source import Source, read_source
from gemma_mlx.adapters.adapter import Adapter
from gemma_mlx.adapters.folder import read_adapter
from gemma_mlx.adapters.layers import place
from gemma_mlx.config import read_config
from gemma_mlx.model.gemma4 import Gemma4
from gemma_mlx.names import canonical_name, mlx_name
from gemma_mlx.weights import load_model
from tests.golden.cases import HERE, TINY

ADAPTERS = HERE / "adapters"
NAMES = ("lora", "dora", "qlora", "full", "peft_dora", "peft_rslora")
PACKED_KINDS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj", "embed_tokens")


def logits_of_trainer(name: str) -> NDArray[Any]:
    """What the trainer's own model answers with the adapter, in float32: [L, V]."""
    found = mx.load(str(ADAPTERS / "logits.safetensors"))
    assert isinstance(found, dict)
    return np.array(found[name])


def packed_and_whole(folder: Path) -> tuple[Path, Path]:
    """The tiny model at 4 bit in groups of 32 as an MLX folder, and a folder of the same numbers, unpacked."""
    stored = mx.load(str(TINY / "model.safetensors"))
    assert isinstance(stored, dict)
    packed, whole = dict[str, mx.array](), dict[str, mx.array]()
    for name, array in stored.items():
        mlx = mlx_name(canonical_name(name))
        packed[mlx] = whole[name] = array
        if name.split(".")[-2] in PACKED_KINDS:
            module = mlx.removesuffix(".weight")
            packed[mlx], scales, biases = mx.quantize(array, group_size=32, bits=4)
            packed |= {f"{module}.scales": scales, f"{module}.biases": biases}
            parts = (part.astype(mx.float32) for part in (scales, biases))
            whole[name] = mx.dequantize(packed[mlx], *parts, group_size=32, bits=4)
    config = json.loads((TINY / "config.json").read_text())
    for tensors, name in ((packed, "packed"), (whole, "whole")):
        (folder / name).mkdir(parents=True)
        mx.save_safetensors(str(folder / name / "model.safetensors"), tensors)
        quantization = {"quantization": {"bits": 4, "group_size": 32}} if name == "packed" else {}
        (folder / name / "config.json").write_text(json.dumps(config | quantization))
    return folder / "packed", folder / "whole"


def adapter_for(model_folder: Path, adapter_folder: Path) -> Adapter:
    return read_adapter(adapter_folder, Gemma4(read_config(model_folder)).shapes())


def loaded(model_folder: Path, adapter_folder: Path, dtype: mx.Dtype = mx.float32) -> Gemma4:
    """The model with the adapter laid over it."""
    config, adapter = read_config(model_folder), adapter_for(model_folder, adapter_folder)
    model = load_model(model_folder, config, dtype, adapter.whole)
    place(model, config.text, adapter)
    return model


def fused(model_folder: Path, adapter_folder: Path, folder: Path) -> Gemma4:
    """The model with the adapter fused into it: written to the new `folder`, nothing rounded, and loaded."""
    write_whole(fuse(read_source(model_folder), adapter_folder), folder)
    return load_model(folder, read_config(folder), mx.float32)


def write_whole(source: Source, folder: Path) -> None:
    """Writes what a conversion reads of `source` in float32, where a conversion would round it to bfloat16."""
    folder.mkdir()
    shutil.copy(source.folder / "config.json", folder)
    tensors = {
        name: mx.concatenate([rows.astype(mx.float32) for rows in tensor.slices()])
        for name, tensor in source.tensors.items()
    }
    mx.save_safetensors(str(folder / "model.safetensors"), {f"model.{name}": array for name, array in tensors.items()})
