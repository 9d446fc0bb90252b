"""A question that is answered with one key."""

from __future__ import annotations

import asyncio

from gemma_mlx.terminal.safe import visible_name


class Question:
    """Asks yes or no; only `y` is a yes."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._answer: asyncio.Future[bool] = asyncio.get_running_loop().create_future()

    def line(self) -> str:
        return f"\x1b[1m{visible_name(self._text)} [y/N]\x1b[0m"

    def key(self, name: str) -> None:
        if not self._answer.done() and name in ("y", "Y", "n", "N", "enter", "escape"):
            self._answer.set_result(name in ("y", "Y"))

    async def answered(self) -> bool:
        return await self._answer
