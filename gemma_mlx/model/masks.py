"""Who sees whom, as a list of query blocks.

A query at position i may see a key at position j

    on a full layer      if j <= i
    on a sliding layer   if (j <= i or i and j lie in the same image) and j > i - W

Sound is causal like text. With W = 4 and an image at positions 2..4 (rows are queries, columns keys):

    full    0 1 2 3 4 5 6        sliding 0 1 2 3 4 5 6
       0    1 . . . . . .           0    1 . . . . . .
       1    1 1 . . . . .           1    1 1 . . . . .
       2    1 1 1 . . . .           2    1 1 1 1 1 . .
       3    1 1 1 1 . . .           3    1 1 1 1 1 . .
       4    1 1 1 1 1 . .           4    . 1 1 1 1 . .
       5    1 1 1 1 1 1 .           5    . . 1 1 1 1 .
       6    1 1 1 1 1 1 1           6    . . . 1 1 1 1

Source: `create_masks_for_vision_model` of transformers and the config comment of google-deepmind/gemma. A chunk of
queries is cut into blocks, so that neither scores nor masks are ever [L, L]; everything is in absolute positions, so
that a chunk in turn five is masked exactly as it would be in turn one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import mlx.core as mx
import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class BlockSizes:
    """How many queries meet their keys at once, per layer type. Scratch grows with them, speed too."""

    full_tokens: int = 256
    """At most; over long contexts fewer, so that `full_pairs` holds."""
    full_pairs: int = 1 << 21
    """Pairs of query and key that a full layer scores at once: 256 queries over 8,192 keys, 8 over 262,144. With 16
    heads in bfloat16 their scores take 67 MB, whatever the context; and 8 queries of 16 heads are 128 rows, enough for
    a matrix product to work more than it reads."""
    sliding_tokens: int = 256

    def full_block_tokens(self, keys: int) -> int:
        """How many queries a full layer takes at once over `keys` keys."""
        return max(1, min(self.full_tokens, self.full_pairs // keys))


@dataclass(frozen=True)
class QueryBlock:
    """Queries `start:stop` of the chunk against the keys at positions `key_start:key_stop`.

    `mask` is None where every query sees every key, "causal" where query `stop - 1` sees all keys and each one before
    it one less, else True where visible, [stop - start, key_stop - key_start].
    """

    start: int
    stop: int
    key_start: int
    key_stop: int
    mask: mx.array | str | None


def full_blocks(offset: int, length: int, block_sizes: BlockSizes) -> list[QueryBlock]:
    """The blocks of a full layer for a chunk of `length` queries at `offset`: keys up to the causal bound."""
    blocks = []
    block_tokens = block_sizes.full_block_tokens(offset + length)
    for start in range(0, length, block_tokens):
        stop = min(start + block_tokens, length)
        blocks.append(QueryBlock(start, stop, 0, offset + stop, "causal" if stop - start > 1 else None))
    return blocks


def sliding_blocks(
    offset: int, length: int, window: int, images: Sequence[tuple[int, int]], block_tokens: int
) -> list[QueryBlock]:
    """The blocks of a sliding layer: keys from the window's edge to the causal bound or the end of an image.

    `images` are the (start, stop) positions of whole images; those outside the chunk do no harm.
    """
    blocks = []
    for start in range(0, length, block_tokens):
        stop = min(start + block_tokens, length)
        first, last = offset + start, offset + stop - 1
        touched = [image for image in images if image[0] <= last and image[1] > first]
        key_start = max(0, first - window + 1)
        key_stop = max([last + 1, *(image_stop for _, image_stop in touched)])
        mask: mx.array | str | None = None
        if stop - start > 1:
            visible = visible_keys(np.arange(first, last + 1), np.arange(key_start, key_stop), window, touched)
            if not touched and last - window < key_start:
                mask = "causal"
            elif not visible.all():
                mask = mx.array(visible)
        blocks.append(QueryBlock(start, stop, key_start, key_stop, mask))
    return blocks


def visible_keys(
    queries: NDArray[np.int_], keys: NDArray[np.int_], window: int, images: Sequence[tuple[int, int]]
) -> NDArray[np.bool_]:
    """The sliding rule itself, for positions `queries` and `keys`: True where visible, [queries, keys]."""
    visible = keys[None, :] <= queries[:, None]
    for start, stop in images:
        inside_queries, inside_keys = (queries >= start) & (queries < stop), (keys >= start) & (keys < stop)
        visible |= inside_queries[:, None] & inside_keys[None, :]
    visible &= keys[None, :] > queries[:, None] - window
    return visible
