"""What goes on beside the input line: commands, and answers on their way."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

from gemma_mlx.terminal.failures import one_line_of


class Work:
    """Tasks of the screen's loop. What fails in one is one line, given to `tell`."""

    def __init__(self, tell: Callable[[str], None], redraw: Callable[[], None]) -> None:
        self._tell, self._redraw = tell, redraw
        self._tasks: set[asyncio.Task[bool]] = set()

    def start(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[bool]:
        """Does `work`; the task gives whether it could be done."""

        async def told() -> bool:
            try:
                await work
            except Exception as error:
                self._tell(one_line_of(error))
                return False
            finally:
                self._redraw()
            return True

        task = asyncio.get_running_loop().create_task(told())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def end(self, busy: Callable[[], bool]) -> None:
        """Lets the tasks go on while `busy`, and then ends them."""
        while self._tasks and busy():
            await asyncio.wait(self._tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
