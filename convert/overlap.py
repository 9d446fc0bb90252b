"""Work of several threads, taken in order: reading ahead of packing, and packing several slices at a time.

Arrays come and go with each slice, so their memory is kept for the next.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

import numpy as np

KEPT_BLOCK_BYTES = 1 << 24
"""More than any array of a slice has."""

Item = TypeVar("Item")
Result = TypeVar("Result")

_END = object()


def read_ahead(items: Iterator[Item], depth: int = 4) -> Iterator[Item]:
    """`items` in their order, up to `depth` of them made in advance. What making one raises, taking it raises.

    Only reading belongs into `items`: an array that MLX has not computed yet belongs to the thread that asked for it.
    """
    reader = ThreadPoolExecutor(1, thread_name_prefix="reader")
    try:
        waiting = deque(reader.submit(next, items, _END) for _ in range(depth))
        while (item := waiting.popleft().result()) is not _END:
            waiting.append(reader.submit(next, items, _END))
            yield item  # type: ignore[misc]  # it is none of ours, so it is an Item
    finally:
        reader.shutdown(cancel_futures=True)


def in_order(work: Callable[[Item], Result], items: Iterable[Item], threads: int) -> Iterator[Result]:
    """`work` of each of `items`, in their order, done by so many threads; by the caller's own for 0."""
    if not threads:
        yield from map(work, items)
        return
    pool = ThreadPoolExecutor(threads, thread_name_prefix="packer")
    waiting: deque[Future[Result]] = deque()
    try:
        for item in items:
            waiting.append(pool.submit(work, item))
            if len(waiting) > 2 * threads:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)


def keep_freed_memory() -> None:
    """Has the C library keep the memory of freed arrays for the next ones.

    glibc gives a block back to the system unless one as large was freed before, and to be given it again, page by page,
    takes as long as half of the packing. With other C libraries it was not measured.
    """
    np.empty(KEPT_BLOCK_BYTES, np.uint8)  # freed at once
