"""Rows of the full layers at 8 bit: 680 bytes a token and layer in the 12B, where bfloat16 takes 1,280.

The row of `shared_rows.py` lies in three buffers, because `mx.quantized_matmul` takes whole packed matrices and would
copy one that is a range of columns of another:

    row          [ rotated R | shared D - R | raw R ]
    scores       q[:R] @ rotated^T + q[R:] @ shared^T
    output       [ weights @ shared | weights @ raw ]         values in value order, as `attend_rows` has them

A group of 64 or 32 numbers shares a scale and a bias in the computing type: number = scale * code + bias. Each row is
quantized once, by itself, when it comes; rewind and replay, and chunks of any length, leave the same bits.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import mlx.core as mx

from gemma_mlx.config import TextConfig
from gemma_mlx.errors import UsageError
from gemma_mlx.model.cache import STEP_TOKENS, RowBuffers
from gemma_mlx.model.masks import QueryBlock
from gemma_mlx.model.shared_rows import attend_blocks

BITS = 8
GROUP_SIZES = (64, 32)
ARRAYS = tuple(f"{part}.{array}" for part in ("rotated", "shared", "raw") for array in ("codes", "scales", "biases"))
"""The buffers of a layer by name and in order."""
RUN_TOKENS = 4096
FEW_QUERIES = 64
"""Up to so many rows of weights, values are summed in runs of `RUN_TOKENS` keys side by side: MLX's Metal kernel gives
one thread group 32 rows, 32 columns and all the keys, so that one long run would leave most of the GPU idle."""


def check_kv_bits(text: TextConfig, kv_bits: int | None) -> None:
    """Raises UsageError unless the full layers' rows can be kept so: None for the computing type, or 8."""
    if kv_bits is not None and (type(kv_bits) is not int or kv_bits != BITS):
        raise UsageError(f"kv_bits is {kv_bits!r}; take 8, or None for rows that are not quantized")
    if kv_bits is not None:
        group_size(text.global_head_dim, text.rotated_dims)


def group_size(head_dims: int, rotated_dims: int) -> int:
    """How many numbers share a scale. Raises UsageError where none of `GROUP_SIZES` divides the parts of a row."""
    for size in GROUP_SIZES:
        if rotated_dims % size == 0 and (head_dims - rotated_dims) % size == 0:
            return size
    raise UsageError(
        f"a full layer of this model has {rotated_dims} rotated and {head_dims - rotated_dims} shared dims, which "
        "groups of 32 do not divide; leave out --kv-bits (kv_bits)"
    )


def row_bytes(text: TextConfig, itemsize: int, kv_bits: int | None) -> int:
    """Bytes that one position takes in the cache of one full layer, in a computing type of `itemsize` bytes."""
    check_kv_bits(text, kv_bits)
    numbers = text.num_global_key_value_heads * text.row_dims
    if kv_bits is None:
        return numbers * itemsize
    groups = numbers // group_size(text.global_head_dim, text.rotated_dims)
    return numbers + groups * 2 * itemsize


class Packed(NamedTuple):
    """One part of the rows: four codes to a word [B, K, S, dims/4], scales and biases [B, K, S, dims/group]."""

    codes: mx.array
    scales: mx.array
    biases: mx.array

    def between(self, start: int, stop: int) -> Packed:
        return Packed(*(array[..., start:stop, :] for array in self))

    def in_runs(self, length: int) -> Packed:
        """[B, K, S, ..] as [B, K, S/length, length, ..], where `length` divides S."""
        return Packed(*(array.reshape(*array.shape[:2], -1, length, array.shape[-1]) for array in self))


def pack(part: mx.array, size: int) -> Packed:
    """`part` [B, K, L, dims] in groups of `size` numbers.

    Codes are chosen for the scale and bias as they are stored; `mx.quantize` chooses first and rounds them after, which
    in bfloat16 makes the error of normal numbers 1.36 times as large.
    """
    groups = part.astype(mx.float32).reshape(*part.shape[:-1], -1, size)  # [B, K, L, G, size]
    biases = groups.min(axis=-1, keepdims=True).astype(part.dtype)
    offsets = groups - biases.astype(mx.float32)
    scales = (offsets.max(axis=-1, keepdims=True) / 255).astype(part.dtype)
    steps = mx.where(scales == 0, 1, scales.astype(mx.float32))
    codes = mx.clip(mx.round(offsets / steps), 0, 255).astype(mx.uint8)
    return Packed(codes.reshape(part.shape).view(mx.uint32), scales[..., 0], biases[..., 0])


@dataclass(frozen=True)
class PackedRows:
    """All rows of a layer, [B, K, S, ..] each part: what `QuantizedCache.update` returns."""

    rotated: Packed
    shared: Packed
    raw: Packed
    group_size: int

    def scores(self, queries: mx.array, start: int, stop: int) -> mx.array:
        """`queries` [B, K, M, D] against the keys `start:stop`, [B, K, M, S]."""
        rotated_dims = self.rotated.codes.shape[-1] * 4
        turned, shared = self.rotated.between(start, stop), self.shared.between(start, stop)
        scores = self._product(queries[..., :rotated_dims], turned, transpose=True)
        return scores + self._product(queries[..., rotated_dims:], shared, transpose=True)

    def values(self, weights: mx.array, start: int, stop: int) -> mx.array:
        """The values `start:stop` in value order, summed by `weights` [B, K, M, S]: [B, K, M, D]."""
        parts = [self.shared.between(start, stop), self.raw.between(start, stop)]
        batch, heads, rows, keys = weights.shape
        whole = keys - keys % RUN_TOKENS
        if rows > FEW_QUERIES or whole <= RUN_TOKENS:
            return mx.concatenate([self._product(weights, part) for part in parts], axis=-1)
        runs = weights[..., :whole].reshape(batch, heads, rows, -1, RUN_TOKENS).swapaxes(2, 3)  # [B, K, S/run, M, run]
        runs = mx.contiguous(runs)  # once for both parts
        summed = [self._product(runs, part.between(0, whole).in_runs(RUN_TOKENS)).sum(axis=2) for part in parts]
        if whole < keys:
            rest = [self._product(weights[..., whole:], part.between(whole, keys)) for part in parts]
            summed = [most + last for most, last in zip(summed, rest, strict=True)]
        return mx.concatenate(summed, axis=-1)

    def _product(self, x: mx.array, part: Packed, *, transpose: bool = False) -> mx.array:
        return mx.quantized_matmul(x, *part, transpose=transpose, group_size=self.group_size, bits=BITS)


def attend_packed_rows(queries: mx.array, rows: PackedRows, blocks: list[QueryBlock]) -> mx.array:
    """Attention of `queries` [B, H, L, D] over `rows`: [B, H, L, D], dims in value order."""
    return attend_blocks(queries, rows.shared.codes.shape[1], blocks, rows.scores, rows.values)


class QuantizedCache(RowBuffers):
    """Rows at 8 bit. Raises UsageError where no group fits."""

    def __init__(self, head_dims: int, rotated_dims: int, step_tokens: int = STEP_TOKENS) -> None:
        super().__init__(ARRAYS, step_tokens)
        self._group_size = group_size(head_dims, rotated_dims)
        self._bounds = [rotated_dims, head_dims]

    def update(self, rows: mx.array) -> PackedRows:
        """Appends `rows` [B, K, L, R] and returns all of them."""
        parts = [pack(part, self._group_size) for part in mx.split(rows, self._bounds, axis=-1)]
        return self._packed(self._append([array for part in parts for array in part]))

    def rows(self) -> PackedRows:
        """All rows; there must be some."""
        return self._packed(list(self.rows_in_use().values()))

    def _packed(self, used: list[mx.array]) -> PackedRows:
        return PackedRows(Packed(*used[:3]), Packed(*used[3:6]), Packed(*used[6:]), self._group_size)
