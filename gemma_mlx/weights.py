"""A model folder becomes a `Gemma4`: names, packed layers, the computing type, and the re-layout of the full layers.

Strict: a tensor too many, too few or of the wrong shape is an error, and so is a weight that is not a number. Works
through the layers one at a time, so that little more than the model itself is ever in memory.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

import mlx.core as mx
import mlx.nn as nn
import numpy as np
from mlx.utils import tree_map_with_path, tree_unflatten

from gemma_mlx.checkpoint import TensorInfo, read_headers, require_tensors, with_whole
from gemma_mlx.config import Config, TextConfig
from gemma_mlx.errors import CheckpointError
from gemma_mlx.model.decoder import DecoderLayer, FullAttention
from gemma_mlx.model.float32_scales import Float32ScalesEmbedding, Float32ScalesLinear
from gemma_mlx.model.gemma4 import Gemma4
from gemma_mlx.model.shared_rows import relayout
from gemma_mlx.quantization import Quantization, StoredPacking


def computing_dtype() -> mx.Dtype:
    """bfloat16, the model's own type, on a GPU; float32 on CPU, where MLX would accumulate bfloat16 in bfloat16."""
    return mx.float32 if mx.default_device() == mx.Device(mx.cpu) else mx.bfloat16


def load_model(
    folder: Path, config: Config, dtype: mx.Dtype | None = None, whole: Mapping[str, TensorInfo] | None = None
) -> Gemma4:
    """The model in `folder`, in memory and ready. Raises CheckpointError in one line for anything that does not fit.

    `dtype` is what to compute in, by default `computing_dtype()`; scales that the folder holds in float32 stay so. The
    tensors `whole`, by canonical name, stand in place of the folder's own.
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
        groups.setdefault(_group(name), {})[name] = array if keeps_its_type(info) else array.astype(dtype)
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


def keeps_its_type(info: TensorInfo) -> bool:
    """Whether a tensor is loaded as it is stored: codes, an order of tokens, scales of 8 bits and those in float32.
    All others are loaded in the computing type."""
    is_float32_scales = info.dtype == "F32" and info.name.endswith((".scales", ".biases"))
    return info.dtype in ("U32", "U8", "I64") or is_float32_scales


def _group(name: str) -> str:
    """What is loaded together: a layer, or a top-level part."""
    parts = name.split(".")
    return ".".join(parts[:3] if parts[1] == "layers" else parts[:2])


def pack_like(model: nn.Module, quantization: Quantization | None, infos: dict[str, TensorInfo]) -> None:
    """Turns the layers that the folder holds packed into packed ones."""

    def packed(path: str, module: nn.Module) -> nn.Module:
        if f"{path}.scales" not in infos:
            return module
        if quantization is None:
            raise CheckpointError(f"{path} is packed but config.json has no quantization; convert the model again")
        found = quantization.of(path)
        if found is None:
            raise CheckpointError(f"{path} is packed but config.json says it is not; convert the model again")
        return _packed(module, found, float32_scales=infos[f"{path}.scales"].dtype == "F32")

    try:
        model.update_modules(tree_map_with_path(packed, model.leaf_modules(), is_leaf=nn.Module.is_module))
    except ValueError as error:
        raise CheckpointError(
            f"config.json packs what cannot be packed so ({error}); convert the model again"
        ) from None


def _packed(module: nn.Module, packing: StoredPacking, *, float32_scales: bool) -> nn.Module:
    """Raises ValueError for what cannot be packed so."""
    if isinstance(module, nn.Linear):
        linear = Float32ScalesLinear if float32_scales else nn.QuantizedLinear
        return linear.from_linear(module, **asdict(packing))
    if isinstance(module, nn.Embedding):
        embedding = Float32ScalesEmbedding if float32_scales else nn.QuantizedEmbedding
        return embedding.from_embedding(module, **asdict(packing))
    raise ValueError(f"{type(module).__name__} is neither linear nor a table")


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
    if group.startswith("language_model.layers."):
        layer = model.language_model.layers[int(group.split(".")[2])]
        place_layer(layer, {name.removeprefix(f"{group}."): array for name, array in weights.items()}, config.text)
        return
    model.update(tree_unflatten(list(weights.items())))
    mx.eval(list(weights.values()))


def place_layer(layer: DecoderLayer, weights: dict[str, mx.array], text: TextConfig) -> None:
    """Puts the tensors of one layer into it and evaluates them.

    `weights` are named as in the checkpoint, without the layer's prefix; those of a full layer come out in the order of
    `shared_rows.py`. What is packed among them the layer holds packed already.
    """
    attention = layer.self_attn
    if isinstance(attention, FullAttention):
        prefix = "self_attn."
        own = {name.removeprefix(prefix): array for name, array in weights.items() if name.startswith(prefix)}
        order = relayout(own, text.num_attention_heads, text.global_head_dim, text.rotated_dims)
        if order is not None:
            attention.restore_output_order(order)
        weights = weights | {prefix + name: array for name, array in own.items()}
    layer.update(tree_unflatten(list(weights.items())))
    mx.eval(list(weights.values()))
