"""How likely the model finds tokens that are given, in chunks: each position needs a row of the whole vocabulary."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import cast

import mlx.core as mx

from gemma_mlx.decoding.prefill import CHUNK_TOKENS, SoftTokens, chunk_bounds, finish_chunk, forward_chunk
from gemma_mlx.model.decoder import Cache
from gemma_mlx.model.gemma4 import Gemma4
from gemma_mlx.model.masks import BlockSizes

SCORE_TOKENS = 16
"""Positions scored at once: each needs a row of 262,144 numbers."""


def logits_of(
    model: Gemma4,
    caches: list[Cache],
    ids: Sequence[int],
    media: Sequence[SoftTokens],
    prompt_tokens: int,
    block_sizes: BlockSizes,
) -> Iterator[mx.array]:
    """The logits that predict each of `ids` behind the first `prompt_tokens`: arrays [L, V] in float32 of a few
    positions each, in order. The empty `caches` hold all of `ids` at the end. Let go of one array before the next."""
    images = [(item.start, item.stop) for item in media if item.is_image]
    before = chunk_bounds(0, prompt_tokens - 1, images, CHUNK_TOKENS)
    for start, stop in [*before, *chunk_bounds(prompt_tokens - 1, len(ids), images, SCORE_TOKENS)]:
        hidden = forward_chunk(model, caches, ids, media, stop, block_sizes)
        first = max(start, prompt_tokens - 1)  # this position predicts the first token behind the prompt
        count = min(stop, len(ids) - 1) - first
        logits = model.logits(hidden[0, first - start :][:count]).astype(mx.float32) if count > 0 else None  # [L, V]
        del hidden
        finish_chunk(caches, logits)
        if logits is not None:
            yield logits
        del logits


def logprobs_of(logits: Iterable[mx.array], ids: Sequence[int]) -> list[float]:
    """The log-probability of each of `ids`, which the rows of `logits` predict (`logits_of`)."""
    found: list[float] = []
    for rows in logits:
        given = mx.array(list(ids[len(found) : len(found) + len(rows)]))
        chosen = mx.take_along_axis(rows, given[:, None], axis=-1)[:, 0]
        found += cast("list[float]", (chosen - mx.logsumexp(rows, axis=-1)).tolist())
        del rows
    return found
