"""Writes in a thread of their own, behind the packing, and the journal that follows them."""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from types import TracebackType

import numpy as np
import numpy.typing as npt

from convert.journal import Journal
from convert.shards import ShardWriter
from convert.tally import Tally

SYNC_BYTES = 256_000_000
"""So many bytes are written before the disk is waited for; a kill loses no more than these."""
MOST_WAITING_BYTES = 64_000_000
"""Packed and not yet written: what is packed in the time that the disk is waited for."""


class WriteBehind:
    """Fills one shard. What is `finished` comes into the journal when its bytes are on the disk.

    An error of the disk is raised by a later call, or at the end; nothing is written or noted after it. However the
    block ends, what was finished before is in the journal.
    """

    def __init__(self, shard: ShardWriter, journal: Journal) -> None:
        self._shard, self._journal = shard, journal
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="writer")
        self._waiting: deque[tuple[Future[None], int]] = deque()
        """What the thread is to do, and how many bytes it writes then."""
        self._waiting_bytes = 0
        self._tallies: dict[str, Tally] = defaultdict(Tally)
        self._finished: dict[str, Tally] = {}
        self._unsynced_bytes = 0
        self._failed = False

    def write(self, name: str, numbers: npt.NDArray[np.generic]) -> None:
        """Appends rows to the tensor `name` of the shard."""
        self._later(lambda: self._write(name, numbers), numbers.nbytes)

    def count(self, tensor: str, tally: Tally) -> None:
        """Adds `tally` to that of the source's `tensor`."""
        self._tallies[tensor] += tally

    def counted(self, tensor: str) -> Tally:
        """What was counted of the source's `tensor` so far."""
        return self._tallies[tensor]

    def finish(self, tensor: str, outputs: Sequence[str]) -> None:
        """Says that all of the source's `tensor` was written, as the shard's tensors `outputs`."""
        tally = self._tallies.pop(tensor)
        self._later(lambda: self._finish(tensor, outputs, tally))

    def __enter__(self) -> WriteBehind:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._thread.shutdown()
        if error is not None:
            with suppress(OSError):
                self._sync()
            return
        for future, _ in self._waiting:
            future.result()
        self._sync()

    def _later(self, task: Callable[[], None], nbytes: int = 0) -> None:
        self._waiting.append((self._thread.submit(self._unless_failed, task), nbytes))
        self._waiting_bytes += nbytes
        while self._waiting and (self._waiting[0][0].done() or self._waiting_bytes > MOST_WAITING_BYTES):
            future, written_bytes = self._waiting.popleft()
            future.result()
            self._waiting_bytes -= written_bytes

    def _unless_failed(self, task: Callable[[], None]) -> None:
        if self._failed:
            return
        try:
            task()
        except BaseException:
            self._failed = True
            raise

    def _write(self, name: str, numbers: npt.NDArray[np.generic]) -> None:
        self._shard.write(name, numbers)
        self._unsynced_bytes += numbers.nbytes

    def _finish(self, tensor: str, outputs: Sequence[str], tally: Tally) -> None:
        self._shard.require_whole(outputs)
        self._finished[tensor] = tally
        if self._unsynced_bytes >= SYNC_BYTES:
            self._sync()

    def _sync(self) -> None:
        # Taken first: a disk that failed to take them once may say at the second try that all is well.
        finished, self._finished, self._unsynced_bytes = self._finished, {}, 0
        if finished:
            self._shard.sync()
            self._journal.add(finished)
