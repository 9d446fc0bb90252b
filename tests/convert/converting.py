"""A process that converts, with small batches, so that a test can kill it in the middle of its work.

    python -m tests.convert.converting SOURCE DESTINATION [KILLED_AT_BYTES [calibrated]]

With KILLED_AT_BYTES it kills itself when it has written that many bytes, before the next ones; `calibrated` rounds with
error feedback on `CALIBRATION`.
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import Any

from convert import source_tensor, write_behind
from convert.calibrated import Calibration
from convert.conversion import convert_source
from convert.recipes import RECIPES
from convert.sensitivity import Sample
from convert.shards import ShardWriter
from convert.source import read_source
from gemma_mlx.inputs.prompt import Prompt

SHARD_BYTES = 60_000
CALIBRATION = Calibration(
    (Sample(Prompt(tuple(range(3, 40)), ()), (9, 30, 31)), Sample(Prompt(tuple(range(90, 50, -1)), ()), ()))
)


def main(folder: str, destination: str, killed_at_bytes: str = "", calibrated: str = "") -> None:
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
    calibration = CALIBRATION if calibrated else None
    source = read_source(Path(folder))
    convert_source(source, Path(destination), RECIPES["4bit"], shard_bytes=SHARD_BYTES, calibration=calibration)


if __name__ == "__main__":
    main(*sys.argv[1:])
