"""What keys go to while it is there, and not into the line: a question, or the recording."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING

from gemma_mlx.terminal.screen.question import Question

if TYPE_CHECKING:
    from gemma_mlx.terminal.screen.recording import RecordingPanel


class Asking:
    """At most one question and one recording; the question goes first."""

    def __init__(self, redraw: Callable[[], None]) -> None:
        self.panel: RecordingPanel | None = None
        """The recording's, while there is one."""
        self._question: Question | None = None
        self._redraw = redraw

    @property
    def for_keys(self) -> bool:
        return self._question is not None or self.panel is not None

    def key(self, name: str) -> None:
        if self._question is not None:
            self._question.key(name)
        elif self.panel is not None:
            self.panel.key(name)
        self._redraw()

    def line(self, columns: int) -> str:
        """What is asked; empty where nothing is."""
        if self._question is not None:
            return self._question.line()
        return self.panel.line(columns) if self.panel is not None else ""

    async def yes(self, question: str) -> bool:
        """Whether a person said yes to `question`, after those before it were answered."""
        while self._question is not None:
            await self._question.answered()
            await asyncio.sleep(0)
        self._question = Question(question)
        self._redraw()
        try:
            return await self._question.answered()
        finally:
            self._question = None
