"""The first pass over a prompt: in chunks, none of which ends inside an image, with only the caches kept.

An image is seen in both directions on the sliding layers, so its tokens must arrive together; sound is causal and may
be cut anywhere.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import mlx.core as mx

from gemma_mlx.model.decoder import Cache
from gemma_mlx.model.gemma4 import Gemma4
from gemma_mlx.model.masks import BlockSizes

CHUNK_TOKENS = 512


@dataclass(frozen=True)
class SoftTokens:
    """A picture or a sound in the token sequence: it takes the positions `start:stop`."""

    start: int
    stop: int
    is_image: bool
    digest: str
    """Equal for equal content."""
    rows: Callable[[], mx.array]
    """Embeds the medium: [stop - start, D]."""


def chunk_bounds(start: int, stop: int, images: Sequence[tuple[int, int]], chunk_tokens: int) -> list[tuple[int, int]]:
    """Cuts positions `start:stop` into chunks of about `chunk_tokens`, none of which begins or ends inside an image.

    An image that would be cut moves whole to the next chunk; one longer than a chunk gets a chunk as long as itself.
    """
    bounds = []
    while start < stop:
        end = min(start + chunk_tokens, stop)
        for image_start, image_stop in images:
            if image_start < end < image_stop:
                end = image_start if image_start > start else image_stop
        bounds.append((start, end))
        start = end
    return bounds


def prefill(
    model: Gemma4,
    caches: list[Cache],
    ids: Sequence[int],
    media: Sequence[SoftTokens],
    *,
    chunk_tokens: int = CHUNK_TOKENS,
    block_sizes: BlockSizes | None = None,
) -> Iterator[mx.array]:
    """Runs the positions of `ids` that the caches do not hold yet; yields each chunk's hidden states [1, L, D].

    When a chunk is yielded its rows are in the caches and nothing of it is left in flight. No image may lie across
    the caches' offset.
    """
    start = caches[0].offset
    images = [(item.start, item.stop) for item in media if item.is_image]
    for begin, end in chunk_bounds(start, len(ids), images, chunk_tokens):
        inside = [item for item in media if item.start < end and item.stop > begin]
        rows = [_part(item, begin, end) for item in inside]
        embeddings = model.embed(ids[begin:end], rows)
        hidden = model(embeddings, caches, [span for span in images if begin <= span[0] < end], block_sizes)
        mx.eval([cache.state() for cache in caches])
        yield hidden
        mx.clear_cache()


def _part(item: SoftTokens, begin: int, end: int) -> tuple[int, mx.array]:
    """The rows of `item` that lie in the chunk `begin:end`, and where in the chunk they go."""
    first, last = max(item.start, begin), min(item.stop, end)
    return first - begin, item.rows()[first - item.start : last - item.start]
