"""Stands in for gemma_mlx.memory until it lands; same names, rougher arithmetic."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import mlx.core as mx

from gemma_mlx.checkpoint import read_headers
from gemma_mlx.config import read_config
from gemma_mlx.errors import UsageError
from gemma_mlx.model.masks import BlockSizes
from gemma_mlx.weights import computing_dtype


@dataclass(frozen=True)
class Machine:
    name: str
    memory_bytes: int
    limit_bytes: int


@dataclass(frozen=True)
class Pace:
    chunk_tokens: int
    block_sizes: BlockSizes
    snapshots: int


@dataclass(frozen=True)
class Plan:
    pace: Pace
    weights_bytes: int
    full_cache_bytes: int
    sliding_cache_bytes: int
    snapshot_bytes: int
    scratch_bytes: int
    drafter_bytes: int
    total_bytes: int
    limit_bytes: int
    fits: bool


def mac(memory: str) -> Machine:
    number = memory.removesuffix("GB")
    if not number.isdigit() or not int(number):
        raise UsageError(f"{memory!r} is no size of memory; write 16GB, 18GB or 24GB")
    memory_bytes = int(number) << 30
    return Machine(f"Mac with {memory}", memory_bytes, memory_bytes * 2 // 3)


def this_machine() -> Machine:
    return Machine("this machine", 24 << 30, 16 << 30)


def plan_folder(
    folder: Path,
    machine: Machine,
    *,
    context_tokens: int,
    kv_bits: int | None = None,
    dtype: mx.Dtype | None = None,
    drafter_bytes: int = 0,
) -> Plan:
    text = read_config(folder).text
    size = (dtype or computing_dtype()).size
    weights = sum(
        info.nbytes if info.dtype == "U32" else info.nbytes * size // (4 if info.dtype == "F32" else 2)
        for info in read_headers(folder).values()
    )
    rows = -(-context_tokens // 1024) * 1024
    full = rows * text.full_layers * text.num_global_key_value_heads * text.row_dims * size
    row = text.sliding_layers * 2 * text.num_key_value_heads * text.head_dim * size
    sliding, snapshot = (text.sliding_window + 63) * row, (text.sliding_window - 1) * row
    chunk = min(512, context_tokens)
    scratch = 4 * text.num_attention_heads * 32 * context_tokens * size
    total = weights + full + sliding + snapshot + scratch
    pace = Pace(chunk, BlockSizes(), 1)
    limit = machine.limit_bytes
    return Plan(pace, weights, full, sliding, snapshot, scratch, 0, total, limit, total <= limit)
