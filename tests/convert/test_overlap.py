from __future__ import annotations

import subprocess
import sys

FAULTS = """
import resource, sys
import numpy as np
from convert.overlap import keep_freed_memory
def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(5):
        arrays = [np.ones(1 << 19, np.uint8) for _ in range(8)]
        del arrays
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
if sys.argv[1] == "kept":
    keep_freed_memory()
faults()
print(faults())
"""


def test_the_memory_of_freed_arrays_serves_the_next_ones() -> None:
    """With glibc, which gives freed blocks back otherwise; another C library must at least not do so because of it."""
    kept, plain = (
        int(subprocess.run([sys.executable, "-c", FAULTS, way], capture_output=True, text=True, check=True).stdout)
        for way in ("kept", "plain")
    )
    if sys.platform == "linux":
        assert kept < 100  # 5 times 8 times 128 pages come new otherwise
    else:
        assert kept < max(100, 1.5 * plain)
