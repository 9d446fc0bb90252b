"""How much memory a model may have, on this machine or on a Mac that is named by its memory."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

import mlx.core as mx

from gemma_mlx.errors import UsageError

_CONTAINER_LIMIT_FILE = Path("/sys/fs/cgroup/memory.max")


@dataclass(frozen=True)
class Machine:
    """`limit_bytes` is what a model may have of `memory_bytes`."""

    name: str
    memory_bytes: int
    limit_bytes: int
    is_cpu: bool = False
    """Whether the CPU computes: MLX then copies strided keys and values for a matrix product."""


def mac(memory: str) -> Machine:
    """A Mac with `memory` ("16GB") as it comes: macOS gives its GPU two thirds of it, from 36 GB on three quarters.

    A 16 GB Mac gives 11,453,246,122 bytes. Newer systems may give more, and a user can ask for more; where this
    program runs, `this_machine` reads what is true. Raises UsageError for what is not an amount of memory.
    """
    found = re.fullmatch(r"(\d{1,4})\s*(?:GB|GiB|G)?", memory.strip(), re.IGNORECASE | re.ASCII)
    if not found or not 8 <= (count := int(found[1])) <= 1024:
        raise UsageError(f"{memory!r} is not the memory of a Mac: write 16GB, 24GB, ... up to 1024GB")
    memory_bytes = count << 30
    share = (3, 4) if count >= 36 else (2, 3)
    return Machine(f"a Mac with {count} GB", memory_bytes, memory_bytes * share[0] // share[1])


def this_machine() -> Machine:
    """The machine that this runs on, and what it gives a model now."""
    if mx.default_device() == mx.Device(mx.cpu):
        memory_bytes = _memory_bytes()
        return Machine(f"this CPU's {memory_bytes / 2**30:.0f} GB", memory_bytes, memory_bytes * 9 // 10, is_cpu=True)
    info = mx.device_info()
    memory_bytes = int(info.get("memory_size") or info.get("total_memory") or _memory_bytes())
    limit_bytes = int(info.get("max_recommended_working_set_size") or memory_bytes * 9 // 10)
    return Machine(f"this machine's {memory_bytes / 2**30:.0f} GB", memory_bytes, limit_bytes)


def _memory_bytes() -> int:
    """The memory of this computer, or of the container that this runs in."""
    found = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    try:
        return min(found, int(_CONTAINER_LIMIT_FILE.read_text(encoding="ascii")))
    except (OSError, ValueError):  # no container, or one without a limit: "max"
        return found
