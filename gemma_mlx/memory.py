"""The memory plan: bytes of weights, caches and scratch for a context on a machine, known before anything is loaded.

    weights    from the headers of the files, in the type that is computed in
    caches     10,240 bytes a token on the full layers of the 12B in bfloat16; a window and its slack on the others
    snapshots  a window each
    scratch    the most that one layer takes on the way, for the blocks that the plan chose

Prefill is evaluated layer by layer and block by block (`decoder.py`, `shared_rows.py`), so scratch is what one layer
takes. In the 12B in bfloat16, over 262,144 keys, for the 1,120 tokens of the largest picture:

    scores of one block, 16 heads x 8 queries          16 x 8 x 262,144 x 2 bytes                      67 MB
    on CPU, the block's K and V in one piece each      2 x 512 x 262,144 x 2                          537 MB
    queries on their way through a full layer          5 x 1,120 x 16 x 512 x 2                        92 MB
    gate, up and their product, 512 tokens at once     4 x 512 x 15,360 x 2                            63 MB
    what goes from layer to layer                      4 x 1,120 x 3,840 x 2                           34 MB

The plan is of one session, and of nothing else that this process keeps on the device. It takes the first of `PACES`
that fits, and is checked against MLX's own counters by `gemma-mlx bench memory`.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path

import mlx.core as mx

from gemma_mlx.checkpoint import DTYPE_BYTES, TensorInfo, read_headers, with_whole
from gemma_mlx.config import Config, TextConfig
from gemma_mlx.decoding.prefill import chunk_tokens_over
from gemma_mlx.errors import ContextError, UsageError
from gemma_mlx.inputs.image import BUDGETS
from gemma_mlx.machine import Machine
from gemma_mlx.memory_limits import Limits, limited
from gemma_mlx.model.cache import SLACK_TOKENS, STEP_TOKENS
from gemma_mlx.model.decoder import LAZY_PAIRS, LAZY_TOKENS, MLP_TOKENS
from gemma_mlx.model.masks import BlockSizes
from gemma_mlx.model.quantized_cache import check_kv_bits
from gemma_mlx.model.quantized_cache import row_bytes as cache_row_bytes
from gemma_mlx.weights import keeps_its_type

RESERVE_SHARE = 0.05
"""Left of the limit for what MLX does not count as active: the driver's buffers, and freed ones that wait. Above 95 %
of what a GPU recommends, MLX gives freed ones back at each allocation, which is slow."""
PATCHES_AT_ONCE = 256
"""Of a picture, so many patches of 6,912 numbers are embedded together."""
CACHE_BYTES = 1 << 29
"""At most so much of the memory that MLX has freed waits to be used again, where there is so much to spare."""
RELEASED_DRAFTER_BYTES = 422_856_964 * 9 // 16
"""google/gemma-4-12B-it-assistant at 4 bit in groups of 64."""
LEAST_CONTEXT_TOKENS = 4096
"""A model that has no room for so many tokens is not worth loading."""

Stored = Mapping[str, int]
"""How many numbers of a folder are loaded in each type: {"U32": ..., "F32": ..., "BF16": ...}. What is loaded in the
computing type counts as BF16, F32 are scales that stay so (`weights.keeps_its_type`)."""


@dataclass(frozen=True)
class Pace:
    """How much is done at once and kept: it costs memory and saves time."""

    block_sizes: BlockSizes
    snapshots: int


PACES = (
    Pace(BlockSizes(), snapshots=2),
    Pace(BlockSizes(), snapshots=1),
    Pace(BlockSizes(full_pairs=1 << 20), snapshots=0),
)
"""From the quickest to the smallest."""


@dataclass(frozen=True)
class Plan:
    """What a model takes with `context_tokens` positions in use, and how it is to work for that."""

    machine: Machine
    context_tokens: int
    kv_bits: int | None
    pace: Pace
    weights_bytes: int
    full_cache_bytes: int
    sliding_cache_bytes: int
    snapshot_bytes: int
    scratch_bytes: int
    drafter_bytes: int
    adapter_bytes: int

    @property
    def chunk_tokens(self) -> int:
        """How many tokens go through the layers at once at the end of such a context."""
        return chunk_tokens_over(self.context_tokens)

    @property
    def total_bytes(self) -> int:
        """The most that MLX will hold at once."""
        caches_bytes = self.full_cache_bytes + self.sliding_cache_bytes + self.snapshot_bytes
        return self.weights_bytes + caches_bytes + self.scratch_bytes + self.drafter_bytes + self.adapter_bytes

    @property
    def limit_bytes(self) -> int:
        """What the machine lets a model have."""
        return self.machine.limit_bytes

    @property
    def reserve_bytes(self) -> int:
        """What is left of the limit for all that is not planned."""
        return int(self.limit_bytes * RESERVE_SHARE)

    @property
    def missing_bytes(self) -> int:
        """How much more would have to be left beside the reserve; 0 where it fits."""
        return max(0, self.total_bytes + self.reserve_bytes - self.limit_bytes)

    @property
    def fits(self) -> bool:
        """Whether the total and the reserve stay within the limit."""
        return self.missing_bytes == 0

    def limits(self) -> AbstractContextManager[None]:
        """MLX's memory, cache and wired limits are those of the plan inside."""
        spare_bytes = max(0, self.limit_bytes - self.total_bytes - self.reserve_bytes // 2)
        wired_bytes = 0 if self.machine.is_cpu else min(self.total_bytes, self.limit_bytes)
        return limited(Limits(self.limit_bytes, min(CACHE_BYTES, spare_bytes), wired_bytes))


@dataclass(frozen=True)
class Planner:
    """All that a plan depends on but the context: a model, a machine, and how they are used."""

    config: Config
    stored: Stored
    machine: Machine
    dtype: mx.Dtype
    kv_bits: int | None = None
    drafter_bytes: int = 0
    adapter_bytes: int = 0

    def with_8_bit_rows(self) -> Planner | None:
        """The same with 8-bit rows; None where it has them already, or where this model's rows cannot be packed."""
        try:
            check_kv_bits(self.config.text, 8)
        except UsageError:
            return None
        return replace(self, kv_bits=8) if self.kv_bits is None else None

    def plan(self, context_tokens: int) -> Plan:
        """The plan with the quickest pace that fits; where none does, that of the smallest."""
        plans = (self._plan(context_tokens, pace) for pace in PACES)
        return next((plan for plan in plans if plan.fits), self._plan(context_tokens, PACES[-1]))

    def largest_context_tokens(self) -> int:
        """The largest context that fits, at most the model's own; 0 where not even one token does."""
        smallest, largest = 0, self.config.text.max_position_embeddings
        while smallest < largest:
            middle = (smallest + largest + 1) // 2
            smallest, largest = (middle, largest) if self.plan(middle).fits else (smallest, middle - 1)
        return smallest

    def require(self, context_tokens: int | None = None) -> Plan:
        """The plan for `context_tokens`, by default the most that fit. Raises ContextError where it does not fit."""
        own_tokens = self.config.text.max_position_embeddings
        if context_tokens is not None and (type(context_tokens) is not int or context_tokens < 1):
            raise UsageError(f"context_tokens is {context_tokens!r}; it must be a whole number from 1 on")
        if context_tokens is not None and context_tokens > own_tokens:
            raise ContextError(f"the model has {own_tokens:,} positions, not {context_tokens:,}; ask for no more")
        largest = self.largest_context_tokens()
        wanted = min(LEAST_CONTEXT_TOKENS, own_tokens) if context_tokens is None else context_tokens
        if wanted > largest:
            raise ContextError(self._refusal(self.plan(wanted), largest))
        return self.plan(largest if context_tokens is None else context_tokens)

    def _refusal(self, plan: Plan, largest: int) -> str:
        advice = [f"{largest:,} tokens would fit"] if largest >= LEAST_CONTEXT_TOKENS else []
        packed = self.with_8_bit_rows()
        if packed is not None and (most := packed.largest_context_tokens()) > largest:
            advice.append(f"{most:,} with --kv-bits 8")
        if self.drafter_bytes and (most := replace(self, drafter_bytes=0).largest_context_tokens()) > largest:
            advice.append(f"{most:,} without the drafter (--draft off)")
        return (
            f"{plan.context_tokens:,} tokens need {readable(plan.total_bytes)} and a reserve of "
            f"{readable(plan.reserve_bytes)}, but {self.machine.name} gives {readable(plan.limit_bytes)}: "
            f"{readable(plan.missing_bytes)} are missing; "
            + (", ".join(advice) or "convert the model to fewer bits, or use a machine with more memory")
        )

    def _plan(self, context_tokens: int, pace: Pace) -> Plan:
        text, item_bytes = self.config.text, self.dtype.size
        row_bytes = cache_row_bytes(text, item_bytes, self.kv_bits)
        rows = -(-context_tokens // STEP_TOKENS) * STEP_TOKENS
        return Plan(
            machine=self.machine,
            context_tokens=context_tokens,
            kv_bits=self.kv_bits,
            pace=pace,
            # the full layers keep the weight of their query's norm in float32 (`decoder.FullAttention`)
            weights_bytes=weights_bytes(self.stored, item_bytes)
            + (4 - item_bytes) * text.global_head_dim * text.full_layers,
            full_cache_bytes=rows * row_bytes * text.full_layers,
            sliding_cache_bytes=sliding_bytes(text, text.sliding_window - 1 + SLACK_TOKENS, item_bytes),
            snapshot_bytes=pace.snapshots
            * sliding_bytes(text, min(text.sliding_window - 1, context_tokens), item_bytes),
            scratch_bytes=max(
                self._prefill_bytes(context_tokens, pace),
                self._decode_bytes(context_tokens),
                rows * row_bytes,  # a cache that grows: of one layer, the old buffer beside the new
            ),
            drafter_bytes=self.drafter_bytes,
            adapter_bytes=self.adapter_bytes,
        )

    def _prefill_bytes(self, context_tokens: int, pace: Pace) -> int:
        """The most that one layer takes on the way, for a chunk or the largest picture, which is a chunk of its own."""
        text = self.config.text
        rows = min(context_tokens, max(chunk_tokens_over(context_tokens), max(BUDGETS)))
        block_tokens = pace.block_sizes.full_block_tokens(context_tokens)
        heads, kv_heads, dims = text.num_attention_heads, text.num_key_value_heads, text.head_dim
        block_rows, keys = pace.block_sizes.sliding_tokens, min(context_tokens, text.sliding_window - 1 + rows)
        sliding = 2 * 2 * heads * block_rows * min(keys, text.sliding_window - 1 + 2 * block_rows)  # of two blocks
        sliding += 6 * keys * kv_heads * dims + rows * (5 * heads * dims + 6 * kv_heads * dims)
        return max(
            self.full_layer_bytes(rows, self._scores(block_tokens, context_tokens)),
            self._layer_bytes(rows, sliding),
            self.embedding_bytes(rows),
        )

    def embedding_bytes(self, rows: int) -> int:
        """What it takes to embed the `rows` patches of a picture, `PATCHES_AT_ONCE` at a time, before the first layer.

        MLX runs ahead of the device and may hold every array of a piece until the piece is done, so all are counted,
        but for those that are written in place. On CPU a norm is several kernels with float32 between them: it makes
        differences, squares and quotients (RMSNorm has no differences), and from bfloat16 there and back two copies
        more. On a GPU it is one kernel, and this is more than is taken. In the 12B, of 256 patches:

            bytes a number                                     float32    bfloat16
            patches: as they come, rounded; normed               4 + 12   4 + 2 + 18    x 256 x 6,912    28 | 42 MB
            product, two positions; normed, normed, RMSNorm     12 + 32      6 + 50     x 256 x 3,840    43 | 55 MB
        """
        vision, item_bytes = self.config.vision, self.dtype.size
        rounded_bytes = 0 if self.dtype == mx.float32 else item_bytes
        norm_bytes = 3 * 4 + (4 + item_bytes if rounded_bytes else 0)
        patch_bytes = vision.patch_dims * (4 + rounded_bytes + norm_bytes)
        patch_bytes += vision.mm_embed_dim * (3 * item_bytes + 3 * norm_bytes - 4)
        return min(rows, PATCHES_AT_ONCE) * patch_bytes + rows * self.config.text.hidden_size * item_bytes

    def full_layer_bytes(self, rows: int, scores: int) -> int:
        """What a full layer takes on the way for `rows` tokens, where attention holds `scores` numbers at once."""
        return self._layer_bytes(
            rows, scores + 5 * rows * self.config.text.num_attention_heads * self.config.text.global_head_dim
        )

    def _layer_bytes(self, rows: int, attention: int) -> int:
        """What a layer takes whose attention takes so many numbers: with the MLP's and those in between."""
        text = self.config.text
        mlp_numbers = min(rows, MLP_TOKENS) * text.intermediate_size
        adapted = 2 * max(mlp_numbers, rows * text.num_attention_heads * text.global_head_dim)  # product, and its sum
        own_bytes = (
            attention + 4 * mlp_numbers + 4 * rows * text.hidden_size + (adapted if self.adapter_bytes else 0)
        ) * self.dtype.size
        return own_bytes + self._float32_copy_bytes(rows)

    def _float32_copy_bytes(self, rows: int) -> int:
        """What layers with float32 scales take beside: copies of what goes in and comes out (`float32_scales.py`)."""
        if self.dtype == mx.float32 or not self.stored.get("F32"):
            return 0
        text = self.config.text
        mlp_numbers = min(rows, MLP_TOKENS) * text.intermediate_size
        return 4 * max(4 * mlp_numbers, 2 * rows * text.num_attention_heads * text.global_head_dim)

    def _decode_bytes(self, context_tokens: int) -> int:
        """What a pass over a few tokens takes: of one on all full layers at once, of more on one (`decoder.py`)."""
        one_token = self._scores(1, context_tokens) * (1 if self.machine.is_cpu else self.config.text.full_layers)
        few_tokens = self._scores(BlockSizes().full_block_tokens(context_tokens), context_tokens)
        attention = max(one_token, few_tokens if context_tokens > LAZY_PAIRS // LAZY_TOKENS else 0)
        return attention * self.dtype.size + 16 * 4 * self.config.text.vocab_size

    def _scores(self, queries: int, keys: int) -> int:
        """Numbers that a full layer holds for a block: scores, in place; on CPU, K and V in one piece each."""
        text = self.config.text
        if self.kv_bits is not None:  # measured: two parts of the scores, their sum, and parts of the values
            return 7 * text.num_attention_heads * queries * keys // 2
        copies = 2 * text.num_global_key_value_heads * text.global_head_dim * keys if self.machine.is_cpu else 0
        return text.num_attention_heads * queries * keys + copies


def stored_numbers(folder: Path, whole: Mapping[str, TensorInfo] | None = None) -> Stored:
    """How many numbers of `folder` are loaded in each type, with the tensors `whole` in place of its own.

    Raises CheckpointError as `read_headers` does.
    """
    counted: Counter[str] = Counter()
    for info in with_whole(read_headers(folder), whole or {}).values():
        counted[info.dtype if keeps_its_type(info) else "BF16"] += math.prod(info.shape)
    return counted


def weights_bytes(stored: Stored, item_bytes: int) -> int:
    """What weights take in memory with a computing type of `item_bytes`."""
    return sum(count * (item_bytes if dtype == "BF16" else DTYPE_BYTES[dtype]) for dtype, count in stored.items())


def sliding_bytes(text: TextConfig, rows: int, item_bytes: int) -> int:
    """So many rows of keys and values on all sliding layers."""
    return 2 * rows * text.num_key_value_heads * text.head_dim * item_bytes * text.sliding_layers


def readable(count_bytes: int) -> str:
    """12.34 GB, or 12.3 MB where that is less than one."""
    return f"{count_bytes / 1e9:.2f} GB" if count_bytes >= 1e9 else f"{count_bytes / 1e6:.1f} MB"
