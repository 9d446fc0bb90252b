"""A process that converts, with small batches, so that a test can kill it in the middle of its work.

    python -m tests.convert.converting SOURCE DESTINATION [KILLED_AT_BYTES]

With the last argument it kills itself when it has written that many bytes, before the next ones.
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import Any

from convert import source_tensor, write_behind
from convert.conversion import convert_checkpoint
from convert.shards import ShardWriter

SHARD_BYTES = 60_000


def main(folder: str, destination: str, killed_at_bytes: str = "") -> None:
    """Converts `folder` at 4 bit."""
    write_behind.SYNC_BYTES = 10_000
    source_tensor.SLICE_NUMBERS = 2048  # several slices a tensor
    if killed_at_bytes:
        left = int(killed_at_bytes)
        write_at = ShardWriter._write_at

        def write_or_die(self: ShardWriter, place: int, data: Any) -> None:
            nonlocal left
            if left < len(data):
                write_at(self, place, data[:left])
                os.kill(os.getpid(), signal.SIGKILL)
            left -= len(data)
            write_at(self, place, data)

        ShardWriter._write_at = write_or_die  # type: ignore[method-assign]
    convert_checkpoint(Path(folder), Path(destination), "4bit", shard_bytes=SHARD_BYTES)


if __name__ == "__main__":
    main(*sys.argv[1:])
