"""An answer on its way from the model's thread to the screen, a few times a second."""

from __future__ import annotations

import asyncio
import textwrap
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING

from gemma_mlx.terminal.chat.waiting import cut
from gemma_mlx.terminal.safe import visible_line
from gemma_mlx.terminal.screen.model_thread import ModelThread, Stop

if TYPE_CHECKING:
    from gemma_mlx.answer import Answer, Reply
    from gemma_mlx.decoding.channels import Channel

REDRAW_S = 0.12
"""Between two looks at what has come: often enough to read along, rare enough to cost the model nothing."""
DIM, PLAIN = "\x1b[2m", "\x1b[0m"


class StoppedError(Exception):
    """The answer was stopped while its prompt was still being read."""


class Streaming:
    """One answer: its pieces as they come, finished lines given to `show`, and the live area in between."""

    def __init__(self, columns: int, show: Callable[[str], None], redraw: Callable[[], None]) -> None:
        self.stop = Stop()
        self.thought_tokens = 0
        self._silent_tokens = 0
        self.thoughts = ""
        from gemma_mlx.terminal.screen.markdown import (
            MarkdownStream,  # takes a tenth of a second: not before the prompt
        )

        self._markdown = MarkdownStream(columns)
        self._pieces: deque[tuple[Channel, str]] = deque()
        self._show, self._redraw = show, redraw
        self._reading = self._read = ""
        self._answering = self._folded = False
        self._columns = columns
        self._drawn: tuple[int, str] | None = None
        """The live area of so many rows, as long as nothing new has come: one drawing asks for it several times."""

    def compute(self, ask: Callable[[Callable[[int, int], None]], Answer]) -> Reply:
        """Runs in the model's thread: `ask` is given what to tell of the prompt's progress."""
        answer = ask(self._progress)
        steps = iter(answer)
        try:
            for step in steps:
                self._pieces.append((step.channel, step.text))
                if self.stop.asked:
                    break
        finally:
            close = getattr(steps, "close", None)
            if close is not None:
                close()
        return answer.reply

    async def run(self, thread: ModelThread, ask: Callable[[Callable[[int, int], None]], Answer]) -> Reply | None:
        """Shows the answer until it ends or is stopped. None where it was stopped before its first word."""
        job = asyncio.ensure_future(thread.do(lambda: self.compute(ask)))
        try:
            while not job.done():
                await asyncio.wait([job], timeout=REDRAW_S)
                self._take()
            return job.result()
        except StoppedError:
            return None
        finally:
            self._take()
            self._end_thoughts()
            rest, self._drawn = self._markdown.finish(), (0, "")
            self._show(rest)
            self._redraw()

    def live(self, columns: int, rows: int) -> str:
        """What stands below the finished lines just now, in at most `rows` lines."""
        if columns != self._columns:
            self._columns, self._drawn = columns, None
            self._markdown.resize(columns)
        if self._drawn is None or self._drawn[0] != rows:
            self._drawn = rows, self._markdown.tail(rows) if self._answering else self._before_answer()
        return self._drawn[1]

    def _before_answer(self) -> str:
        if self.thought_tokens:
            last = self.thoughts[-self._columns :].rstrip("\n").rpartition("\n")[2]
            line = visible_line(f"thinking, {self.thought_tokens:,} tokens: {last}")
        else:
            line = self._read
        return DIM + cut(line, self._columns - 1) + PLAIN if line else ""

    def _progress(self, done: int, of: int) -> None:
        if self.stop.asked:
            raise StoppedError
        self._reading = f"reading the prompt: {done:,} of {of:,} tokens" if done < of else ""

    def _take(self) -> None:
        """Shows what has come; nothing is drawn twice, since drawing takes from the model's time."""
        if not self._pieces and self._read == self._reading:
            return
        text, self._read, self._drawn = "", self._reading, None
        while self._pieces:
            channel, piece = self._pieces.popleft()
            if channel == "thought":
                self._silent_tokens += 1
                if piece:  # the last one of all says nothing: it ends the thought, and is none
                    self.thought_tokens += self._silent_tokens
                    self._silent_tokens = 0
                self.thoughts += piece
            else:
                text += piece
        if text and not self._answering:
            self._answering = True
            self._end_thoughts()
            text = text.lstrip("\n")
        if finished := self._markdown.feed(text):
            self._show(finished)
        else:
            self._redraw()

    def _end_thoughts(self) -> None:
        """Folds the thoughts into one line that stays."""
        if self.thoughts and not self._folded:
            self._folded = True
            told = f"thought for {self.thought_tokens:,} tokens; /thoughts shows them"
            for line in textwrap.wrap(told, max(20, self._columns - 1)):
                self._show(f"{DIM}{line}{PLAIN}\n")
