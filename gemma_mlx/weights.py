"""A model folder becomes a `Gemma4`: names, packed layers, the computing type, and the re-layout of the full layers.

Strict: a tensor too many, too few or of the wrong shape is an error, and so is a weight that is not a number. Works
through the layers one at a time, so that little more than the model itself is ever in memory.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import numpy as np
from mlx.utils import tree_unflatten

from gemma_mlx.checkpoint import TensorInfo, read_headers, require_tensors, with_whole
from gemma_mlx.config import Config
from gemma_mlx.errors import CheckpointError
from gemma_mlx.model.decoder import FullAttention
from gemma_mlx.model.gemma4 import Gemma4
from gemma_mlx.model.shared_rows import relayout
from gemma_mlx.quantization import Quantization


def computing_dtype() -> mx.Dtype:
    """bfloat16, the model's own type, on a GPU; float32 on CPU, where MLX would accumulate bfloat16 in bfloat16."""
    return mx.float32 if mx.default_device() == mx.Device(mx.cpu) else mx.bfloat16


def load_model(
    folder: Path, config: Config, dtype: mx.Dtype | None = None, whole: Mapping[str, TensorInfo] | None = None
) -> Gemma4:
    """The model in `folder`, in memory and ready. Raises CheckpointError in one line for anything that does not fit.

    `dtype` is what to compute in, by default `computing_dtype()`. The tensors `whole`, by canonical name, stand in
    place of the folder's own.
    """
    dtype = dtype or computing_dtype()
    if dtype not in (mx.float32, mx.bfloat16):
        raise CheckpointError(f"Gemma 4 overflows in {dtype}; compute in bfloat16 or float32")
    infos = with_whole(read_headers(folder), whole or {})
    model = Gemma4(config)
    pack_like(model, config.quantization, infos)
    require_tensors(folder, infos, model.shapes())
    sources = {file: read_tensors(file) for file in {info.file for info in infos.values()}}
    groups: dict[str, dict[str, mx.array]] = {}
    for name, info in infos.items():
        array = sources[info.file].pop(info.name)
        if mx.issubdtype(array.dtype, mx.floating):
            array = array.astype(dtype)
        groups.setdefault(_group(name), {})[name] = array
    for group in sorted(groups):
        weights = groups.pop(group)
        check_finite(folder, weights)
        _place(model, group, weights, config)
    return model


def read_tensors(file: Path) -> dict[str, mx.array]:
    """The tensors of a file by the name on disk; their bytes are read when they are evaluated."""
    found = mx.load(str(file), format="safetensors")
    assert isinstance(found, dict)
    return found


def _group(name: str) -> str:
    """What is loaded together: a layer, or a top-level part."""
    parts = name.split(".")
    return ".".join(parts[:3] if parts[1] == "layers" else parts[:2])


def pack_like(model: nn.Module, quantization: Quantization | None, infos: dict[str, TensorInfo]) -> None:
    """Turns the linears that the folder holds packed into packed ones."""

    def packing(path: str, module: nn.Module) -> bool | dict[str, Any]:
        if f"{path}.scales" not in infos:
            return False
        if quantization is None:
            raise CheckpointError(f"{path} is packed but config.json has no quantization; convert the model again")
        found = quantization.of(path)
        if found is None:
            raise CheckpointError(f"{path} is packed but config.json says it is not; convert the model again")
        return asdict(found)

    try:
        nn.quantize(model, class_predicate=packing)
    except ValueError as error:
        raise CheckpointError(
            f"config.json packs what cannot be packed so ({error}); convert the model again"
        ) from None


def check_finite(folder: Path, weights: dict[str, mx.array]) -> None:
    """Raises CheckpointError if one of `weights` holds NaN or infinity; packed words are not looked into."""
    names = [name for name, array in weights.items() if mx.issubdtype(array.dtype, mx.floating)]
    if not names:  # a part that is packed in a float mode has no floats
        return
    sums = mx.stack([weights[name].sum().astype(mx.float32) for name in names])  # NaN and infinity survive a sum
    finite = np.array(mx.isfinite(sums))
    for name, is_finite in zip(names, finite, strict=True):
        if not is_finite:
            raise CheckpointError(f"{name} in {folder} holds NaN or infinity; download or convert the model again")


def _place(model: Gemma4, group: str, weights: dict[str, mx.array], config: Config) -> None:
    """Puts the tensors of one group into the model and evaluates them."""
    text = config.text
    if group.startswith("language_model.layers."):
        attention = model.language_model.layers[int(group.split(".")[2])].self_attn
        if isinstance(attention, FullAttention):
            prefix = f"{group}.self_attn."
            own = {name.removeprefix(prefix): weights.pop(name) for name in list(weights) if name.startswith(prefix)}
            order = relayout(own, text.num_attention_heads, text.global_head_dim, text.rotated_dims)
            if order is not None:
                attention.restore_output_order(order)
            weights |= {prefix + name: array for name, array in own.items()}
    model.update(tree_unflatten(list(weights.items())))
    mx.eval(list(weights.values()))
