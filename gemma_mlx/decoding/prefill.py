"""The first pass over a prompt: in chunks, none of which ends inside an image, with only the caches kept.

An image is seen in both directions on the sliding layers, so its tokens must arrive together; sound is causal and may
be cut anywhere.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import mlx.core as mx

from gemma_mlx.model.decoder import Cache
from gemma_mlx.model.gemma4 import Gemma4
from gemma_mlx.model.masks import BlockSizes

CHUNK_TOKENS = 512
"""At most so many tokens go through the layers at once."""
LEAST_CHUNK_TOKENS = 128
CHUNK_PAIRS = 1 << 25
"""Pairs of query and key in a chunk: over long contexts it gets shorter, 256 tokens over 131,072, so that a chunk takes
about as long everywhere. Between two chunks is when progress is shown and an interrupt is heeded."""


def chunk_tokens_over(keys: int) -> int:
    """How long a chunk is that begins at position `keys`."""
    return min(CHUNK_TOKENS, max(LEAST_CHUNK_TOKENS, CHUNK_PAIRS // max(1, keys)))


@dataclass(frozen=True)
class SoftTokens:
    """A picture or a sound in the token sequence: it takes the positions `start:stop`."""

    start: int
    stop: int
    is_image: bool
    digest: str
    """Equal for equal content."""
    rows: Callable[[int, int], mx.array]
    """Embeds the rows from one index up to another, [count, D]; of an image, all are asked for."""


def chunk_bounds(start: int, stop: int, images: Sequence[tuple[int, int]], chunk_tokens: int) -> list[tuple[int, int]]:
    """Cuts positions `start:stop` into chunks of at most `chunk_tokens`, none of which begins or ends inside an image.

    Over long contexts they are shorter, see `CHUNK_PAIRS`. An image that would be cut moves whole to the next chunk;
    one longer than a chunk gets a chunk as long as itself.
    """
    bounds = []
    while start < stop:
        end = min(start + min(chunk_tokens, chunk_tokens_over(start)), stop)
        for image_start, image_stop in images:
            if image_start < end < image_stop:
                end = image_start if image_start > start else image_stop
        bounds.append((start, end))
        start = end
    return bounds


def forward_chunk(
    model: Gemma4,
    caches: list[Cache],
    ids: Sequence[int],
    media: Sequence[SoftTokens],
    stop: int,
    block_sizes: BlockSizes | None = None,
) -> mx.array:
    """Runs the positions of `ids` from the caches' offset to `stop`; returns their hidden states [1, L, D].

    Neither end may lie inside an image. Not all is evaluated yet: evaluate the caches' state, and of the hidden states
    what is needed, then let go of them, or they keep the caches' buffers from being written in place.
    """
    start = caches[0].offset
    inside = [item for item in media if item.start < stop and item.stop > start]
    images = [(item.start, item.stop) for item in inside if item.is_image]
    embeddings = model.embed(ids[start:stop], [_part(item, start, stop) for item in inside])
    mx.eval(embeddings)  # before the first layer takes its own scratch
    return model(embeddings, caches, images, block_sizes)


def finish_chunk(caches: list[Cache], wanted: mx.array | None = None) -> None:
    """Evaluates the caches and `wanted`, and gives back the memory that the chunk took on the way."""
    mx.eval([cache.state() for cache in caches], [] if wanted is None else wanted)
    mx.clear_cache()


def _part(item: SoftTokens, start: int, stop: int) -> tuple[int, mx.array]:
    """The rows of `item` that lie in the chunk `start:stop`, and where in the chunk they go."""
    first, last = max(item.start, start), min(item.stop, stop)
    return first - start, item.rows(first - item.start, last - item.start)
