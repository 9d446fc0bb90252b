"""An adapter laid over a loaded model: the layers of `mlx_lm.tuner` around our own, packed or not.

The only place that imports mlx_lm, which takes seconds (it imports transformers): only where an adapter is named.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import mlx.core as mx
import mlx.nn as nn

from gemma_mlx.adapters.adapter import Adapter, LowRank
from gemma_mlx.config import TextConfig
from gemma_mlx.errors import CheckpointError, GemmaError
from gemma_mlx.model.decoder import FullAttention
from gemma_mlx.model.gemma4 import Gemma4
from gemma_mlx.model.shared_rows import key_order, over_heads, value_order

SLICE_NUMBERS = 1 << 22
"""Of a matrix, so many numbers are unpacked at once to measure its rows."""


class DoRALinear(nn.Module):
    """A linear under LoRA whose outputs are scaled one by one.

    mlx_lm's own unpacks the matrix and measures its rows again for each token; of a trained adapter the factors are
    constants.
    """

    def __init__(self, lora: nn.Module, factors: mx.array) -> None:
        super().__init__()
        self.lora = lora
        self.factors = factors
        bias = lora.linear.get("bias")
        self.shift = None if bias is None else bias * (1 - factors)
        """DoRA scales what the matrix gives, before its bias is added."""

    def __call__(self, x: mx.array) -> mx.array:
        y = self.lora(x) * self.factors
        return y if self.shift is None else y + self.shift


class DoRAEmbedding(nn.Module):
    """A token table under LoRA whose rows are scaled one by one."""

    def __init__(self, lora: nn.Module, factors: mx.array) -> None:
        super().__init__()
        self.lora = lora
        self.factors = factors

    def __call__(self, ids: mx.array) -> mx.array:
        return self.lora(ids) * self.factors[ids][..., None]

    def as_linear(self, x: mx.array) -> mx.array:
        return self.lora.as_linear(x) * self.factors


def require_mlx_lm() -> None:
    """Imports what adapters are run with. Raises GemmaError where it is not installed."""
    try:
        import mlx_lm.tuner.lora  # noqa: F401
    except ImportError as error:
        raise GemmaError(f"an adapter needs mlx-lm ({error}); run: python3 -m pip install mlx-lm") from None


def place(model: Gemma4, text: TextConfig, adapter: Adapter) -> None:
    """From now on `model`, as `load_model` gave it for the adapter's whole tensors, answers with `adapter`.

    Its numbers are then in memory in the type that the model computes in, and `adapter` has none left. Raises
    CheckpointError for a DoRA whose rows cannot be scaled.
    """
    from mlx_lm.tuner.lora import LoRAEmbedding, LoRALinear

    while adapter.updates:  # what it was read as is freed matrix by matrix
        path, update = adapter.updates.popitem()
        parent, name = _parent(model, path)
        layer = getattr(parent, name)
        if isinstance(parent, FullAttention):
            update = _in_row_order(update, parent, name, text)
        is_table = isinstance(layer, (nn.Embedding, nn.QuantizedEmbedding))
        lora = (LoRAEmbedding if is_table else LoRALinear).from_base(layer, r=update.rank, scale=update.scale)
        first, second = (update.up, update.down) if is_table else (update.down.T, update.up.T)
        lora.lora_a, lora.lora_b = first.astype(model.dtype), second.astype(model.dtype)
        if update.magnitude is not None:
            factors = _row_factors(layer, update)
            if not mx.isfinite(factors).all().item():
                raise CheckpointError(f"a row of {path} is zero under {adapter.folder}; name another adapter")
            lora = (DoRAEmbedding if is_table else DoRALinear)(lora, factors.astype(model.dtype))
        lora.freeze()
        mx.eval(lora.parameters())
        setattr(parent, name, lora)


def _parent(model: nn.Module, path: str) -> tuple[nn.Module, str]:
    """The module that holds the one at `path`, and the last name."""
    *outer, name = path.split(".")
    module = model
    for part in outer:
        module = module[int(part)] if isinstance(module, list) else getattr(module, part)
    return module, name


def _in_row_order(update: LowRank, attention: FullAttention, name: str, text: TextConfig) -> LowRank:
    """`update` for a matrix that `shared_rows.relayout` has re-ordered, in the same order."""
    head_dims, rotated_dims = text.global_head_dim, text.rotated_dims
    if name == "o_proj":
        if attention.restores_output_order:
            return update
        columns = over_heads(value_order(head_dims, rotated_dims), text.num_attention_heads)
        return replace(update, down=update.down[:, mx.array(columns)])
    rows = mx.array(over_heads(key_order(head_dims, rotated_dims), update.shape[0] // head_dims))
    magnitude = None if update.magnitude is None else update.magnitude[rows]
    return replace(update, up=update.up[rows], magnitude=magnitude)


def _row_factors(layer: nn.Module, update: LowRank) -> mx.array:
    """By what DoRA multiplies each row of `layer` with its update: [rows], float32. A slice at a time."""
    found = []
    for first, rows in _slices(layer, update.shape):
        found.append(update.row_factors(update.added_to(rows, first), first))
        mx.eval(found[-1])
    return mx.concatenate(found)


def _slices(layer: nn.Module, shape: tuple[int, int]) -> Iterator[tuple[int, mx.array]]:
    """The rows of a linear or embedding [rows, columns], unpacked, and the number of the first one of each slice."""
    rows_at_once = max(1, SLICE_NUMBERS // shape[1])
    for first in range(0, shape[0], rows_at_once):
        part = slice(first, first + rows_at_once)
        if "scales" in layer:
            yield first, _unpacked(layer, part)
        else:
            yield first, layer.weight[part]


def _unpacked(layer: nn.Module, part: slice) -> mx.array:
    """The rows `part` of a packed layer, in float32."""
    scales, biases = layer.scales[part], None
    if "biases" in layer:  # the numbers come in the type of scales and biases; float modes have other scales alone
        scales, biases = scales.astype(mx.float32), layer.biases[part].astype(mx.float32)
    weight, packing = layer.weight[part], (layer.group_size, layer.bits, layer.mode)
    return mx.dequantize(weight, scales, biases, *packing, dtype=mx.float32)
