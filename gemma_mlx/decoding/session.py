"""A conversation's caches: each turn pays for what is new, and for the last answer once more.

The cache holds the tokens of the last prompt and answer. A new prompt usually begins the same way; the part that it
shares is kept and the rest is rewound. But the template writes an answer differently once it is history (an empty or a
full thought stood before it), so the shared part ends where the model's turn began, further back than a sliding
layer can rewind. There, a snapshot of the sliding layers was taken:

    prompt 1   <bos><|turn>user Hi<turn|> | <|turn>model <|channel>thought <channel|> Hello!<turn|>
    prompt 2   <bos><|turn>user Hi<turn|> | <|turn>model Hello!<turn|> <|turn>user ...
                                          ^ snapshot

The full layers need none: they rewind anywhere. With several snapshots, also an earlier message can be rewritten, and
what stands before it is kept.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import mlx.core as mx

from gemma_mlx.decoding.contents import Contents, Key, named
from gemma_mlx.decoding.generate import settle
from gemma_mlx.decoding.prefill import (
    CHUNK_TOKENS,
    SoftTokens,
    chunk_bounds,
    finish_chunk,
    forward_chunk,
)
from gemma_mlx.model.cache import SLACK_TOKENS, SlidingCache, SlidingSnapshot
from gemma_mlx.model.decoder import Cache
from gemma_mlx.model.gemma4 import Gemma4
from gemma_mlx.model.masks import BlockSizes


@dataclass(frozen=True)
class _Snapshot:
    offset: int
    sliding: dict[int, SlidingSnapshot]
    """By layer."""

    @property
    def nbytes(self) -> int:
        return sum(item.nbytes for item in self.sliding.values())


class Session:
    """The caches of one conversation and what is in them.

    It keeps the last `snapshots` snapshots of the sliding layers; with none, a turn can only go back as far as those
    layers rewind.
    """

    def __init__(
        self,
        model: Gemma4,
        *,
        chunk_tokens: int = CHUNK_TOKENS,
        block_sizes: BlockSizes | None = None,
        kv_bits: int | None = None,
        snapshots: int = 1,
    ) -> None:
        self._model = model
        self._kv_bits = kv_bits
        self._chunk_tokens = chunk_tokens
        self._block_sizes = block_sizes
        self._most_snapshots = snapshots
        self.turn = 0
        """Counts the prefills: who began one before the last does not own the caches any more."""
        self.reset()

    def reset(self) -> None:
        """Forgets everything."""
        self.caches: list[Cache] = self._model.make_caches(self._kv_bits)
        self._keys: list[Key] = []
        self._snapshots: list[_Snapshot] = []  # the one last asked for is last

    def is_of(self, model: Gemma4) -> bool:
        """Whether the rows in it are those of `model`."""
        return self._model is model

    @property
    def offset(self) -> int:
        """How many positions are cached."""
        return len(self._keys)

    @property
    def nbytes(self) -> int:
        """Bytes that the caches and the snapshots hold."""
        return sum(held.nbytes for held in [*self._snapshots, *self.caches])

    def prefill(
        self,
        ids: Sequence[int],
        media: Sequence[SoftTokens] = (),
        *,
        stable_tokens: int | Sequence[int] = (),
        reserve_tokens: int = 0,
        progress: Callable[[int, int], None] | None = None,
    ) -> tuple[mx.array, int]:
        """Brings the caches to the end of `ids`; returns the last hidden state [1, 1, D] and how many were re-used.

        `stable_tokens` is how much of `ids` the next prompt will begin with, or several such lengths, the likeliest
        last: snapshots are taken there, of the last ones if there are more than are kept. The caches are given room
        for `reserve_tokens` more. `progress` is told (done, all) positions after each chunk; if it raises, the chunks
        that are done stay cached. If anything else goes wrong, the session is empty afterwards.
        """
        self.turn += 1
        keys = _keys(ids, media)
        reused = self._keep(keys)
        stable = self._stable_offsets(stable_tokens, keys)
        self._take_snapshots(stable)
        for cache in self.caches:
            if not isinstance(cache, SlidingCache):
                cache.reserve(len(ids) + reserve_tokens)
        last: mx.array | None = None
        images = [(item.start, item.stop) for item in media if item.is_image]
        for stop in self._chunk_stops(reused, len(ids), images, stable):
            try:
                last = self._compute(ids, media, stop)
                self._take_snapshots(stable)
            except BaseException:
                self.reset()
                raise
            self._keys = keys[:stop]
            if progress is not None:
                progress(stop, len(ids))
        assert last is not None
        return last, reused

    def append(self, ids: Sequence[int], turn: int | None = None) -> None:
        """Says which tokens were generated after the prefill; caches that ran ahead of them are rewound.

        With the `turn` that they were generated in, nothing happens if another one has begun since. Where the caches
        disagree, an interrupt came in the middle of a layer: then nothing in them can be trusted, and the session is
        empty afterwards.
        """
        if turn not in (None, self.turn):
            return
        if not self._consistent():
            self.reset()
            return
        offset = settle(self.caches, self.offset + len(ids))
        self._keys += ids[: offset - self.offset]

    def contents(self) -> Contents:
        """What to save. ValueError while an answer is on its way: the caches run ahead of what is known then."""
        if not self._consistent() or self.caches[0].offset != self.offset:
            raise ValueError("an answer is still on its way")
        if not self.offset:
            return Contents([], [], {})
        arrays = named(enumerate(self.caches))
        for number, snapshot in enumerate(self._snapshots):
            arrays |= named(snapshot.sliding.items(), number)
        return Contents(self._keys, [snapshot.offset for snapshot in self._snapshots], arrays)

    def refill(self, contents: Contents) -> None:
        """The session becomes the one whose `contents` these are; ValueError, and an empty session, if it cannot.

        Each array is asked for once, layer by layer, and let go of before the next layer's; those of snapshots more
        than are kept are not asked for.
        """
        self.reset()
        if not contents.keys:
            return
        offsets = contents.snapshot_offsets
        first_kept = len(offsets) - self._most_snapshots
        snapshots = {number: _Snapshot(offset, {}) for number, offset in enumerate(offsets) if number >= first_kept}
        try:
            for index, cache in enumerate(self.caches):
                for number, snapshot in snapshots.items():
                    if isinstance(cache, SlidingCache):
                        cache.refill(snapshot.offset, contents.of_layer(index, number))
                        snapshot.sliding[index] = cache.snapshot()
                        mx.eval(list(snapshot.sliding[index].rows_in_use().values()))
                cache.refill(len(contents.keys), contents.of_layer(index))
                mx.eval(cache.state())
        except BaseException:
            self.reset()
            raise
        self._keys = list(contents.keys)
        self._snapshots = list(snapshots.values())

    def one_position(self, snapshots: int) -> Mapping[str, mx.array]:
        """What `contents` would hold of a single position, to compare names, types and shapes with.

        Of all this only the empty buffers of the full layers are evaluated.
        """
        caches = self._model.make_caches(self._kv_bits)
        self._model(self._model.embed_tokens(mx.array([[0]])), caches)
        sliding = [(index, cache) for index, cache in enumerate(caches) if isinstance(cache, SlidingCache)]
        arrays = named(enumerate(caches))
        for number in range(snapshots):
            arrays |= named(sliding, number)
        return arrays

    def _stable_offsets(self, asked: int | Sequence[int], keys: list[Key]) -> list[int]:
        """Where in `keys` to take snapshots, in order; none cuts a medium in two."""
        wanted = [asked] if isinstance(asked, int) else list(asked)
        wanted = wanted[max(0, len(wanted) - self._most_snapshots) :]
        return sorted({_outside_media(keys, min(offset, len(keys))) for offset in wanted if offset > 0} - {0})

    def _chunk_stops(
        self, start: int, stop: int, images: Sequence[tuple[int, int]], stable: Sequence[int]
    ) -> Iterable[int]:
        """Where chunks end: also at a stable offset, if the prompt's end is too far off to look back from."""
        edges = [offset for offset in stable if start < offset < stop - SLACK_TOKENS]
        for first, last in zip([start, *edges], [*edges, stop], strict=True):
            for _, chunk_stop in chunk_bounds(first, last, images, self._chunk_tokens):
                yield chunk_stop

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
        else:
            shared = self._restore(shared)
        self._snapshots = [snapshot for snapshot in self._snapshots if snapshot.offset <= shared]
        self._keys = keys[:shared]
        return shared

    def _take_snapshots(self, offsets: Sequence[int]) -> None:
        """Takes those of `offsets` that can be had of the caches as they stand, in place of the longest unasked for."""
        sliding = {index: cache for index, cache in enumerate(self.caches) if isinstance(cache, SlidingCache)}
        for offset in offsets:
            back = self.caches[0].offset - offset
            known = [snapshot for snapshot in self._snapshots if snapshot.offset == offset]
            self._snapshots = [snapshot for snapshot in self._snapshots if snapshot.offset != offset] + known
            if known or not all(cache.can_rewind(back) for cache in sliding.values()):
                continue
            del self._snapshots[: max(0, len(self._snapshots) + 1 - self._most_snapshots)]
            taken = {index: cache.snapshot(back) for index, cache in sliding.items()}
            mx.eval([list(item.rows_in_use().values()) for item in taken.values()])
            self._snapshots.append(_Snapshot(offset, taken))

    def _restore(self, most: int) -> int:
        """Goes back to the last snapshot at position `most` or before it; without one, to nothing. Returns where."""
        fitting = [snapshot for snapshot in self._snapshots if snapshot.offset <= most]
        if not fitting:
            self.reset()
            return 0
        chosen = max(fitting, key=lambda snapshot: snapshot.offset)
        for index, cache in enumerate(self.caches):
            if isinstance(cache, SlidingCache):
                cache.restore(chosen.sliding[index])
            else:
                cache.rewind(cache.offset - chosen.offset)
        return chosen.offset


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
