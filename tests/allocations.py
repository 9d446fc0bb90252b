"""What MLX holds, once nothing of an earlier test is about to go away."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager

import mlx.core as mx


def settled_bytes() -> int:
    """The bytes MLX holds now; the peak begins here.

    Garbage in cycles, and buffers of work that the device has not finished, are held until some later moment: a
    difference that is taken without waiting for them can come out too small.
    """
    gc.collect()
    mx.synchronize()
    mx.clear_cache()
    mx.reset_peak_memory()
    return mx.get_active_memory()


@contextmanager
def exact_buffers() -> Iterator[None]:
    """Inside, an array takes its own size: MLX otherwise uses freed buffers again, of up to twice what is asked for."""
    limit_bytes = mx.set_cache_limit(0)
    try:
        yield
    finally:
        mx.set_cache_limit(limit_bytes)
