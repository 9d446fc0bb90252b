"""The next items are made in another thread while the present one is used."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

Item = TypeVar("Item")

_END = object()


def read_ahead(items: Iterator[Item], depth: int = 4) -> Iterator[Item]:
    """`items` in their order, up to `depth` of them made in advance. What making one raises, taking it raises.

    Only reading belongs into `items`: MLX computes in the thread that it began in.
    """
    reader = ThreadPoolExecutor(1, thread_name_prefix="reader")
    try:
        waiting = deque(reader.submit(next, items, _END) for _ in range(depth))
        while (item := waiting.popleft().result()) is not _END:
            waiting.append(reader.submit(next, items, _END))
            yield item  # type: ignore[misc]  # it is none of ours, so it is an Item
    finally:
        reader.shutdown(cancel_futures=True)
