"""How likely the model finds tokens that are given, in chunks: each position needs a row of the whole vocabulary."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import mlx.core as mx

from gemma_mlx.decoding.prefill import SoftTokens, chunk_bounds, finish_chunk, forward_chunk
from gemma_mlx.model.decoder import Cache
from gemma_mlx.model.gemma4 import Gemma4
from gemma_mlx.model.masks import BlockSizes

SCORE_TOKENS = 16
"""Positions scored at once: each needs a row of 262,144 numbers."""


def logprobs_of(
    model: Gemma4,
    caches: list[Cache],
    ids: Sequence[int],
    media: Sequence[SoftTokens],
    prompt_tokens: int,
    block_sizes: BlockSizes,
) -> list[float]:
    """The log-probability of each of `ids` behind the first `prompt_tokens`; the empty `caches` hold them all then."""
    images = [(item.start, item.stop) for item in media if item.is_image]
    found: list[float] = []
    for start, stop in chunk_bounds(0, len(ids), images, SCORE_TOKENS):
        hidden = forward_chunk(model, caches, ids, media, stop, block_sizes)
        first = max(start, prompt_tokens - 1)  # this position predicts the first token behind the prompt
        following = ids[first + 1 : stop + 1]
        logprobs = _logprobs(model, hidden[0, first - start :][: len(following)], following) if following else None
        del hidden
        finish_chunk(caches, logprobs)
        found += [] if logprobs is None else cast("list[float]", logprobs.tolist())
    return found


def _logprobs(model: Gemma4, hidden: mx.array, ids: Sequence[int]) -> mx.array:
    """The log-probability [L] of each of `ids`, from the hidden states [L, D] of the positions before them."""
    logits = model.logits(hidden).astype(mx.float32)  # [L, V]
    chosen = mx.take_along_axis(logits, mx.array(list(ids))[:, None], axis=-1)[:, 0]
    return chosen - mx.logsumexp(logits, axis=-1)
