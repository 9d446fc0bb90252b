"""What MLX holds, once nothing of an earlier test is about to go away."""

from __future__ import annotations

import gc

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
