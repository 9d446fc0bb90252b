"""A conversation's caches: each turn pays for what is new, and for the last answer once more.

The cache holds the tokens of the last prompt and answer. A new prompt usually begins the same way; the part that it
shares is kept and the rest is rewound. But the template writes an answer differently once it is history (an empty or a
full thought stood before it), so the shared part ends where the model's turn began, further back than a sliding
layer can rewind. There, a snapshot of the sliding layers was taken:

    prompt 1   <bos><|turn>user Hi<turn|> | <|turn>model <|channel>thought <channel|> Hello!<turn|>
    prompt 2   <bos><|turn>user Hi<turn|> | <|turn>model Hello!<turn|> <|turn>user ...
                                          ^ snapshot
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import mlx.core as mx

from gemma_mlx.decoding.generate import settle
from gemma_mlx.decoding.prefill import (
    CHUNK_TOKENS,
    SoftTokens,
    chunk_bounds,
    chunk_tokens_over,
    finish_chunk,
    forward_chunk,
)
from gemma_mlx.model.cache import SlidingCache, SlidingSnapshot
from gemma_mlx.model.decoder import Cache
from gemma_mlx.model.gemma4 import Gemma4
from gemma_mlx.model.masks import BlockSizes

Key = int | tuple[str, int]
"""What stands at a position: a token id, or the n-th row of a medium by its digest."""


@dataclass(frozen=True)
class _Snapshot:
    offset: int
    sliding: tuple[SlidingSnapshot | None, ...]


class Session:
    """The caches of one conversation and what is in them."""

    def __init__(
        self,
        model: Gemma4,
        *,
        chunk_tokens: int = CHUNK_TOKENS,
        block_sizes: BlockSizes | None = None,
        kv_bits: int | None = None,
    ) -> None:
        self._model = model
        self._kv_bits = kv_bits
        self._chunk_tokens = chunk_tokens
        self._block_sizes = block_sizes
        self.reset()

    def reset(self) -> None:
        """Forgets everything."""
        self.caches: list[Cache] = self._model.make_caches(self._kv_bits)
        self._keys: list[Key] = []
        self._snapshot: _Snapshot | None = None

    @property
    def offset(self) -> int:
        """How many positions are cached."""
        return len(self._keys)

    @property
    def nbytes(self) -> int:
        """Bytes that the caches and the snapshot hold."""
        snapshot = self._snapshot.sliding if self._snapshot else ()
        held = sum(item.keys.nbytes + item.values.nbytes for item in snapshot if item is not None)
        return held + sum(cache.nbytes for cache in self.caches)

    def prefill(
        self,
        ids: Sequence[int],
        media: Sequence[SoftTokens] = (),
        *,
        stable_tokens: int = 0,
        reserve_tokens: int = 0,
        progress: Callable[[int, int], None] | None = None,
    ) -> tuple[mx.array, int]:
        """Brings the caches to the end of `ids`; returns the last hidden state [1, 1, D] and how many were re-used.

        `stable_tokens` is how much of `ids` the next prompt will begin with: a snapshot is taken there. The caches are
        given room for `reserve_tokens` more. `progress` is told (done, all) positions after each chunk; if it raises,
        the chunks that are done stay cached. If anything else goes wrong, the session is empty afterwards.
        """
        keys = _keys(ids, media)
        reused = self._keep(keys)
        for cache in self.caches:
            if not isinstance(cache, SlidingCache):
                cache.reserve(len(ids) + reserve_tokens)
        last: mx.array | None = None
        images = [(item.start, item.stop) for item in media if item.is_image]
        for _, stop in chunk_bounds(reused, len(ids), images, chunk_tokens_over(len(ids), self._chunk_tokens)):
            try:
                last = self._compute(ids, media, stop)
                if 0 < stable_tokens <= stop:
                    self._take_snapshot(stable_tokens)
            except BaseException:
                self.reset()
                raise
            self._keys = keys[:stop]
            if progress is not None:
                progress(stop, len(ids))
        assert last is not None
        return last, reused

    def append(self, ids: Sequence[int]) -> None:
        """Says which tokens were generated after the prefill; caches that ran ahead of them are rewound.

        Where the caches disagree, an interrupt came in the middle of a layer: then nothing in them can be trusted,
        and the session is empty afterwards.
        """
        if not self._consistent():
            self.reset()
            return
        offset = settle(self.caches, self.offset + len(ids))
        self._keys += ids[: offset - self.offset]

    def _compute(self, ids: Sequence[int], media: Sequence[SoftTokens], stop: int) -> mx.array | None:
        """Brings the caches to `stop`; at the end of `ids`, also the last hidden state [1, 1, D]."""
        hidden = forward_chunk(self._model, self.caches, ids, media, stop, self._block_sizes)
        last = hidden[:, -1:] if stop == len(ids) else None
        del hidden
        finish_chunk(self.caches, last)
        return last

    def _consistent(self) -> bool:
        return len({cache.offset for cache in self.caches}) == 1

    def _keep(self, keys: list[Key]) -> int:
        """Rewinds to the longest prefix that `keys` shares with the caches; returns its length.

        At least the last position is left to compute, for its hidden state.
        """
        if not self._consistent() or self.caches[0].offset != self.offset:
            self.reset()  # an answer was left open, or stopped in the middle of a layer
        shared = 0
        for old, new in zip(self._keys, keys[:-1], strict=False):
            if old != new:
                break
            shared += 1
        shared = _outside_media(keys, shared)
        back = self.offset - shared
        if all(not isinstance(cache, SlidingCache) or cache.can_rewind(back) for cache in self.caches):
            for cache in self.caches:
                cache.rewind(back)
        elif self._snapshot is not None and self._snapshot.offset <= shared:
            self._restore(self._snapshot)
            shared = self._snapshot.offset
        else:
            self.reset()
            shared = 0
        if self._snapshot is not None and self._snapshot.offset > shared:
            self._snapshot = None
        self._keys = keys[:shared]
        return shared

    def _take_snapshot(self, offset: int) -> None:
        if self._snapshot is not None and self._snapshot.offset == offset:
            return
        sliding = [cache for cache in self.caches if isinstance(cache, SlidingCache)]
        back = self.caches[0].offset - offset
        if all(cache.can_rewind(back) for cache in sliding):
            taken = [cache.snapshot(back) if isinstance(cache, SlidingCache) else None for cache in self.caches]
            mx.eval([[item.keys, item.values] for item in taken if item is not None])
            self._snapshot = _Snapshot(offset, tuple(taken))

    def _restore(self, snapshot: _Snapshot) -> None:
        for cache, saved in zip(self.caches, snapshot.sliding, strict=True):
            if isinstance(cache, SlidingCache):
                assert saved is not None
                cache.restore(saved)
            else:
                cache.rewind(cache.offset - snapshot.offset)


def _keys(ids: Sequence[int], media: Sequence[SoftTokens]) -> list[Key]:
    keys: list[Key] = list(ids)
    for item in media:
        keys[item.start : item.stop] = [(item.digest, row) for row in range(item.stop - item.start)]
    return keys


def _outside_media(keys: list[Key], offset: int) -> int:
    """`offset`, or the start of the medium that it would cut in two."""
    if 0 < offset < len(keys):
        before, after = keys[offset - 1], keys[offset]
        if isinstance(before, tuple) and isinstance(after, tuple) and before[0] == after[0] and after[1] > 0:
            return offset - after[1]
    return offset
