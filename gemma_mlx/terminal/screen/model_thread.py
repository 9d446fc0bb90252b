"""The one thread that touches the model: jobs one after the other, while the screen goes on."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")


class Stop:
    """A wish that the job at work looks at between two tokens."""

    def __init__(self) -> None:
        self.asked = False


class ModelThread:
    """MLX keeps its streams by thread, so whatever it computes is computed here: loading, answers, saved caches."""

    def __init__(self) -> None:
        self._executor = ThreadPoolExecutor(1, thread_name_prefix="model")

    async def do(self, job: Callable[[], T]) -> T:
        """What `job` returns, or raises, when its turn has come."""
        return await asyncio.get_running_loop().run_in_executor(self._executor, job)

    async def end(self) -> None:
        """Ends the thread, once all that it was given to do is done."""
        await self.do(_end_streams)
        self._executor.shutdown(wait=True)


def _end_streams() -> None:
    """MLX's threads behind a thread's streams must end before it does: else the process may abort at its exit."""
    if "mlx.core" in sys.modules:
        import mlx.core as mx

        mx.synchronize()
        mx.clear_streams()
