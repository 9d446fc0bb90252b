"""What the layers remember.

A full layer keeps every position; a sliding layer keeps the W - 1 positions that the next query may see, and a few
more, the slack. Rows lie in order of position, without gap or wrap, so that attention takes a plain slice. With
W = 4 and a slack of 3 there is room for W - 1 + slack = 6 rows:

    after 6 tokens    0 1 2 3 4 5
    token 6 comes     3 4 5 6 . .     no room: the last W - 1 rows move to the front, the new one follows
    token 7 comes     3 4 5 6 7 .
    rewind(2)         3 4 5 . . .     exact: the query at 6 may see 3 4 5, and they are here
    rewind(1)         raises          the query at 5 may see 2, which is gone
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import mlx.core as mx

STEP_TOKENS = 1024
"""A full cache grows by this many rows."""
SLACK_TOKENS = 64
"""Rows beyond the window in a sliding cache: at least its last update can always be rewound, if no longer than this."""


class RewindError(Exception):
    """A cache was asked to forget more than it can forget exactly."""


def _written(buffer: mx.array, rows: mx.array, at: int) -> mx.array:
    """`buffer` with `rows` at position `at`; in place when nobody else holds the buffer."""
    buffer[..., at : at + rows.shape[2], :] = rows
    return buffer


def _moved(rows: mx.array, capacity: int) -> mx.array:
    """A new buffer of `capacity` positions that begins with `rows`, and shares no memory with them."""
    batch, heads, count, dims = rows.shape
    if count == capacity:
        return rows * mx.array(1, rows.dtype)  # writing all of a buffer would give `rows` themselves, uncopied
    return _written(mx.zeros((batch, heads, capacity, dims), dtype=rows.dtype), rows, 0)


def _check_rows(of: str, found: int, least: int, most: int) -> None:
    if not least <= found <= most:
        raise ValueError(f"{of} has {found} rows, not {least if least == most else f'{least} to {most}'}")


class RowBuffers:
    """Named buffers [B, K, S, ..] with a row for every position, for ever: what a full layer keeps.

    They grow in whole steps, each evaluated before the next one grows, so that one old buffer at most lies beside the
    new ones.
    """

    def __init__(self, names: Sequence[str], step_tokens: int) -> None:
        self.offset = 0
        self._names = names
        self._step_tokens = step_tokens
        self._reserved_tokens = 0
        self._buffers: dict[str, mx.array] = {}

    @property
    def nbytes(self) -> int:
        return sum(buffer.nbytes for buffer in self._buffers.values())

    def reserve(self, tokens: int) -> None:
        """Afterwards there is room for `tokens` positions; a cache that is still empty makes it at its first update."""
        self._reserved_tokens = tokens
        for name, buffer in self._buffers.items():
            if tokens > buffer.shape[2]:
                self._buffers[name] = self._in_steps(buffer[..., : self.offset, :], tokens)

    def rewind(self, tokens: int) -> None:
        """Forgets the last `tokens` positions."""
        if not 0 <= tokens <= self.offset:
            raise RewindError(f"cannot rewind {tokens} tokens of {self.offset}")
        self.offset -= tokens

    def rows_in_use(self) -> dict[str, mx.array]:
        """Every array by name, as far as it holds positions: views of the buffers, [B, K, S, ..]."""
        return {name: buffer[..., : self.offset, :] for name, buffer in self._buffers.items()}

    def refill(self, offset: int, arrays: Mapping[str, mx.array]) -> None:
        """The state becomes the one at `offset` whose `rows_in_use` are `arrays`. ValueError where it cannot be."""
        for name in self._names:
            _check_rows(f"{name} of a full layer", arrays[name].shape[2], offset, offset)
        self._buffers = {name: self._in_steps(arrays[name], offset) for name in self._names}
        self.offset = offset

    def state(self) -> list[mx.array]:
        """The arrays to evaluate."""
        return list(self._buffers.values())

    def _append(self, arrays: Sequence[mx.array]) -> list[mx.array]:
        """Appends `arrays` [B, K, L, ..], in the order of the names; returns all rows of each, [B, K, S, ..]."""
        end = self.offset + arrays[0].shape[2]
        for name, array in zip(self._names, arrays, strict=True):
            buffer = self._buffers.get(name)
            if buffer is None or end > buffer.shape[2]:
                used = array[..., :0, :] if buffer is None else buffer[..., : self.offset, :]
                buffer = self._in_steps(used, end)
            self._buffers[name] = _written(buffer, array, self.offset)
        self.offset = end
        return list(self.rows_in_use().values())

    def _in_steps(self, rows: mx.array, tokens: int) -> mx.array:
        """A buffer that begins with `rows` and has room for `tokens` positions, or for those reserved."""
        steps = -(-max(tokens, self._reserved_tokens) // self._step_tokens)
        buffer = _moved(rows, steps * self._step_tokens)
        mx.eval(buffer)
        return buffer


class FullCache(RowBuffers):
    """Rows in the computing type: key and value of a full layer overlap in each (`shared_rows.py`)."""

    def __init__(self, step_tokens: int = STEP_TOKENS) -> None:
        super().__init__(["rows"], step_tokens)

    def update(self, rows: mx.array) -> mx.array:
        """Appends `rows` [B, K, L, R] and returns all of them, [B, K, S, R]."""
        return self._append([rows])[0]

    def rows(self) -> mx.array:
        """All rows, [B, K, S, R]; there must be some."""
        return self.rows_in_use()["rows"]


@dataclass(frozen=True)
class SlidingSnapshot:
    """The window of a sliding layer as it was when the next position was `offset`."""

    offset: int
    keys: mx.array
    values: mx.array

    @property
    def nbytes(self) -> int:
        return self.keys.nbytes + self.values.nbytes

    def rows_in_use(self) -> dict[str, mx.array]:
        """As those of `SlidingCache`, which this can be made of again with `refill` and `snapshot`."""
        return {"keys": self.keys, "values": self.values}


class SlidingCache:
    """Keys and values of the last positions of a sliding layer, in order of position."""

    def __init__(self, window: int, slack_tokens: int = SLACK_TOKENS) -> None:
        self.offset = 0
        self._kept = window - 1
        self._capacity = self._kept + slack_tokens
        self._rows = 0
        self._keys: mx.array | None = None
        self._values: mx.array | None = None

    @property
    def nbytes(self) -> int:
        return sum(buffer.nbytes for buffer in self.state())

    @property
    def first(self) -> int:
        """Position of the oldest row."""
        return self.offset - self._rows

    def update(self, keys: mx.array, values: mx.array) -> tuple[mx.array, mx.array, int]:
        """Appends `keys` and `values` [B, K, L, Dh]; returns what the new queries may see and the first's position.

        When there is no room, the new rows are returned joined to the window before them, and the cache drops to the
        last of them that it has room for.
        """
        length = keys.shape[2]
        if self._keys is None or self._values is None:
            self._keys, self._values = (
                _moved(keys[..., :0, :], self._capacity),
                _moved(values[..., :0, :], self._capacity),
            )
        if self._rows + length <= self._capacity:
            self._keys = _written(self._keys, keys, self._rows)
            self._values = _written(self._values, values, self._rows)
            self._rows, self.offset = self._rows + length, self.offset + length
            return self._keys[..., : self._rows, :], self._values[..., : self._rows, :], self.first
        window = slice(max(0, self._rows - self._kept), self._rows)
        first = self.offset - (window.stop - window.start)
        all_keys = mx.concatenate([self._keys[..., window, :], keys], axis=2)  # [B, K, W-1+L, Dh]
        all_values = mx.concatenate([self._values[..., window, :], values], axis=2)
        rows = min(self._capacity, all_keys.shape[2])
        self._keys = _moved(all_keys[..., -rows:, :], self._capacity)
        self._values = _moved(all_values[..., -rows:, :], self._capacity)
        self._rows, self.offset = rows, self.offset + length
        return all_keys, all_values, first

    def last(self, tokens: int) -> tuple[mx.array, mx.array]:
        """Keys and values [B, K, S, Dh] of the last `tokens` positions, or of all that are here; there must be some."""
        assert self._keys is not None
        assert self._values is not None
        rows = slice(max(0, self._rows - tokens), self._rows)
        return self._keys[..., rows, :], self._values[..., rows, :]

    def can_rewind(self, tokens: int) -> bool:
        """Whether every key that a query `tokens` back could see is still here."""
        return 0 <= tokens <= self._rows and self._rows - tokens >= min(self.offset - tokens, self._kept)

    def rewind(self, tokens: int) -> None:
        """Forgets the last `tokens` positions exactly, or raises RewindError."""
        if not self.can_rewind(tokens):
            raise RewindError(f"cannot rewind {tokens} tokens: only {self._rows} rows are kept of {self.offset}")
        self.offset -= tokens
        self._rows -= tokens

    def snapshot(self, back_tokens: int = 0) -> SlidingSnapshot:
        """A copy of the state as it was `back_tokens` ago. Raises RewindError where that is lost."""
        if not self.can_rewind(back_tokens) or self._keys is None or self._values is None:
            raise RewindError(f"cannot take a snapshot {back_tokens} tokens back")
        stop = self._rows - back_tokens
        rows = slice(max(0, stop - self._kept), stop)
        count = rows.stop - rows.start
        return SlidingSnapshot(
            self.offset - back_tokens,
            _moved(self._keys[..., rows, :], count),
            _moved(self._values[..., rows, :], count),
        )

    def restore(self, snapshot: SlidingSnapshot) -> None:
        """The state becomes that of `snapshot`, which stays usable."""
        self.offset = snapshot.offset
        self._rows = snapshot.keys.shape[2]
        self._keys = _moved(snapshot.keys, self._capacity)
        self._values = _moved(snapshot.values, self._capacity)

    def rows_in_use(self) -> dict[str, mx.array]:
        """Every array by name, as far as it holds positions: views of the buffers, [B, K, S, ..]."""
        if self._keys is None or self._values is None:
            return {}
        return {"keys": self._keys[..., : self._rows, :], "values": self._values[..., : self._rows, :]}

    def refill(self, offset: int, arrays: Mapping[str, mx.array]) -> None:
        """The state becomes the one at `offset` whose `rows_in_use` are `arrays`. ValueError where it cannot be."""
        keys, values = arrays["keys"], arrays["values"]
        least, most = min(offset, self._kept), min(offset, self._capacity)
        for rows in (keys, values):
            _check_rows("a sliding layer", rows.shape[2], least, most)
        _check_rows("a sliding layer's values", values.shape[2], keys.shape[2], keys.shape[2])
        self.offset, self._rows = offset, keys.shape[2]
        self._keys, self._values = _moved(keys, self._capacity), _moved(values, self._capacity)

    def state(self) -> list[mx.array]:
        """The arrays to evaluate."""
        return [buffer for buffer in (self._keys, self._values) if buffer is not None]
