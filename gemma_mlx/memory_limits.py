"""MLX's limits on memory, set for as long as something works under them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import mlx.core as mx


@dataclass(frozen=True)
class Limits:
    """What MLX may have active, keep of what was freed, and hold wired; None: as it is."""

    memory_bytes: int | None
    cache_bytes: int | None
    wired_bytes: int | None


@dataclass(frozen=True)
class MemoryUse:
    """What MLX holds now, what it freed and keeps for later included, and the most that the plan lets it hold."""

    used_bytes: int
    limit_bytes: int


def memory_use(limit_bytes: int) -> MemoryUse:
    """As things are; may be asked from any thread, also while another one computes."""
    return MemoryUse(mx.get_active_memory() + mx.get_cache_memory(), limit_bytes)


_limits_before: list[Limits] = []
"""What to go back to, once for each plan whose limits are set: MLX has one set of limits for all."""


@contextmanager
def limited(limits: Limits) -> Iterator[None]:
    """MLX's limits are these inside.

    Beyond the memory limit MLX waits for work to end before it allocates, and then goes over it. On a Mac, wired memory
    is not paged out while the model works. Afterwards the limits are as before the first of all that are inside at a
    time, in whatever order these end, and all work has ended.
    """
    _limits_before.append(_limits_before[0] if _limits_before else _set_limits(Limits(None, None, None)))
    try:
        _set_limits(limits)
        yield
    finally:
        before = _limits_before.pop()
        mx.synchronize()  # wired memory must not change under work that is on its way
        if not _limits_before:
            _set_limits(before)


def _set_limits(limits: Limits) -> Limits:
    """Sets MLX's limits and returns what they were."""
    return Limits(
        _swap(mx.set_memory_limit, limits.memory_bytes),
        _swap(mx.set_cache_limit, limits.cache_bytes),
        _swap(mx.set_wired_limit, limits.wired_bytes) if mx.metal.is_available() else None,
    )


def _swap(set_limit: Callable[[int], int], limit_bytes: int | None) -> int:
    """Sets one limit, which None leaves as it is; returns what it was."""
    before_bytes = set_limit(0 if limit_bytes is None else limit_bytes)
    if limit_bytes is None:
        set_limit(before_bytes)
    return before_bytes
