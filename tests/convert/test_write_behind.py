from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from convert import write_behind
from convert.journal import Journal
from convert.shards import OutputTensor, ShardWriter, plan_shards
from convert.write_behind import WriteBehind


class SlowShard(ShardWriter):
    """Whose disk takes no rows before it is told to."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, plan_shards([[OutputTensor("a", "U32", (100,))]], 1000)[0])
        self.may_write = threading.Event()
        self.written = 0

    def write(self, name: str, numbers: npt.NDArray[np.generic]) -> None:
        assert self.may_write.wait(30)
        super().write(name, numbers)
        self.written += len(numbers)


def test_no_more_than_so_many_bytes_wait_for_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(write_behind, "MOST_WAITING_BYTES", 80)
    rows = np.zeros(10, np.uint32)  # 40 bytes
    with SlowShard(tmp_path) as shard, WriteBehind(shard, Journal(tmp_path / "journal")) as writer:
        for _ in range(2):
            writer.write("a", rows)
        assert shard.written == 0  # both fit
        third = threading.Thread(target=writer.write, args=["a", rows])
        third.start()
        third.join(0.1)
        assert third.is_alive()  # until the disk has taken the first
        shard.may_write.set()
        third.join()
        assert shard.written >= 10
    assert shard.written == 30
