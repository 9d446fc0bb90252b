"""X^T X of what the linears of a layer are given, which is all that error feedback needs to know of their inputs.

The q, k and v projections share theirs, and so do gate and up: four matrices for a layer. That of down_proj would have
944 MB in the 12B (15,360 inputs), and what is needed to invert it several times as much. So no more than BLOCK_COLUMNS
columns are taken together, as if inputs of different blocks had nothing to do with each other:

    q k v      3,840 inputs             59 MB
    o_proj     4,096 (full: 2 x 4,096)  67 MB (134 MB)
    gate up    3,840                    59 MB
    down_proj  4 x 3,840               236 MB

What is lost by that: `python -m benchmarks.feedback` has blocks of a third and a sixth of the miniature's down_proj.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager

import mlx.core as mx
import mlx.nn as nn
import numpy as np

from convert.feedback import LAZY_COLUMNS, Moments
from convert.rounding import Floats
from gemma_mlx.config import TextConfig
from gemma_mlx.model.decoder import DecoderLayer, FullAttention
from gemma_mlx.model.shared_rows import over_heads, value_order

BLOCK_COLUMNS = 4096

SHARED = {
    "self_attn.q_proj": ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
    "self_attn.o_proj": ("self_attn.o_proj",),
    "mlp.gate_proj": ("mlp.gate_proj", "mlp.up_proj"),
    "mlp.down_proj": ("mlp.down_proj",),
}
"""Path in the layer of a linear that is listened to -> all that are given the same. Full layers have no v_proj."""


class Recorder(nn.Module):
    """A linear that adds up X^T X of all that it is given, in float32."""

    def __init__(self, linear: nn.Linear, block_columns: int, order: mx.array | None) -> None:
        super().__init__()
        self.linear = linear
        self._order = order
        columns = linear.weight.shape[1]
        self._blocks = diagonal_blocks(columns, block_columns)
        self._sums = [mx.zeros((block.stop - block.start,) * 2) for block in self._blocks]
        self._positions = 0

    def __call__(self, x: mx.array) -> mx.array:
        rows = x.reshape(-1, x.shape[-1]).astype(mx.float32)  # [N, C]
        if self._order is not None:
            rows = rows[:, self._order]
        for index, block in enumerate(self._blocks):
            part = rows[:, block]
            self._sums[index] = self._sums[index] + part.T @ part
        mx.eval(self._sums)  # or every x would be held until the end
        self._positions += len(rows)
        return self.linear(x)

    def seconds(self) -> Iterator[Floats]:
        """X^T X / N of all N positions so far, block after block in the order of the checkpoint's columns."""
        for total in self._sums:
            yield np.array(total / self._positions)

    def moments(self) -> list[Moments]:
        """The same, ready to be used."""
        return [Moments.of(block, second) for block, second in zip(self._blocks, self.seconds(), strict=True)]


def diagonal_blocks(columns: int, most: int) -> list[slice]:
    """`columns` in as few blocks of at most `most` as there can be, each a multiple of LAZY_COLUMNS but the last."""
    width = math.ceil(columns / math.ceil(columns / most) / LAZY_COLUMNS) * LAZY_COLUMNS
    return [slice(first, min(first + width, columns)) for first in range(0, columns, width)]


def widest_block(text: TextConfig, most: int = BLOCK_COLUMNS) -> int:
    """Columns of the widest block in any layer; 4,096 in the 12B."""
    heads = text.num_attention_heads
    inputs = (text.hidden_size, heads * text.head_dim, heads * text.global_head_dim, text.intermediate_size)
    return max(block.stop - block.start for columns in inputs for block in diagonal_blocks(columns, most))


@contextmanager
def recorded(
    layer: DecoderLayer, text: TextConfig, block_columns: int = BLOCK_COLUMNS
) -> Iterator[dict[str, Recorder]]:
    """Listens to the linears of `layer` that `SHARED` names, by their path, until the block ends."""
    found = {}
    for path in SHARED:
        parent, child = _place(layer, path)
        order = _checkpoint_order(layer, text) if child == "o_proj" else None
        found[path] = Recorder(parent[child], block_columns, order)
        setattr(parent, child, found[path])
    try:
        yield found
    finally:
        for path, recorder in found.items():
            parent, child = _place(layer, path)
            setattr(parent, child, recorder.linear)


def _place(layer: DecoderLayer, path: str) -> tuple[nn.Module, str]:
    part, _, child = path.partition(".")
    return layer[part], child


def _checkpoint_order(layer: DecoderLayer, text: TextConfig) -> mx.array | None:
    """Of what o_proj is given, where its columns were moved when it was loaded (`shared_rows.py`)."""
    attention = layer.self_attn
    if not isinstance(attention, FullAttention) or attention.restores_output_order:
        return None
    moved = over_heads(value_order(text.global_head_dim, text.rotated_dims), text.num_attention_heads)
    return mx.array(np.argsort(moved))
