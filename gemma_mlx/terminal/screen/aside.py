"""What is said in another thread, brought to the screen's own."""

from __future__ import annotations

import asyncio
from typing import Protocol


class _Sayer(Protocol):
    def say(self, line: str) -> None: ...


class Aside:
    """A `Teller` for the model's thread. What is going on meanwhile, the status line tells anyway."""

    def __init__(self, loop: asyncio.AbstractEventLoop, screen: _Sayer) -> None:
        self._loop, self._screen = loop, screen

    def say(self, line: str) -> None:
        self._loop.call_soon_threadsafe(self._screen.say, line)

    def status(self, line: str) -> None:
        pass

    def clear_status(self) -> None:
        pass
