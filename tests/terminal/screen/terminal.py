"""A terminal in memory: what a person types goes into the chat's screen, what they would see comes out of it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable
from pathlib import Path
from threading import Event, Thread
from types import SimpleNamespace
from typing import Any

import pyte
from prompt_toolkit.application import create_app_session
from prompt_toolkit.data_structures import Size
from prompt_toolkit.history import InMemoryHistory
from prompt_toolkit.input import PipeInput, create_pipe_input
from prompt_toolkit.output.vt100 import Vt100_Output

from benchmarks.scripted import Script, ScriptedGemma
from gemma_mlx.tasks.conversation import Conversation
from gemma_mlx.terminal.screen import app

WAIT_S = 30
"""For a busy machine; what comes is seen at once."""
PIPE_CHARACTERS = 8_000
ALLOWED = {"\x1b", "\n", "\r", "\b", "\t", "\x07"}
"""Control characters that the screen itself may send; the styles' and the cursor's sequences begin with the first."""


class Terminal:
    """Reads as a person does: `text` is all that was ever shown and not erased, the live rows at the end."""

    encoding = "utf-8"

    def __init__(self, keys: PipeInput, columns: int = 80, rows: int = 24) -> None:
        self._display = pyte.HistoryScreen(columns, rows, history=5000, ratio=0.5)
        self._stream = pyte.Stream(self._display)
        self._keys = keys
        self.writes: list[str] = []
        """All that went to the terminal."""

    # What prompt_toolkit's output asks of a file

    def write(self, text: str) -> None:
        self.writes.append(text)
        self._stream.feed(text)

    def flush(self) -> None:
        pass

    def isatty(self) -> bool:
        return True

    def fileno(self) -> int:
        raise OSError("no file")

    # What a person does and sees

    @property
    def size(self) -> Size:
        return Size(self._display.lines, self._display.columns)

    def resize(self, columns: int, rows: int) -> None:
        self._display.resize(rows, columns)

    def type(self, keys: str) -> None:
        self._keys.send_text(keys)

    def paste(self, text: str) -> None:
        """A long one in a thread: a pipe holds less."""
        if len(text) < PIPE_CHARACTERS:
            self._keys.send_text(f"\x1b[200~{text}\x1b[201~")
            return
        Thread(target=self._keys.send_text, args=[f"\x1b[200~{text}\x1b[201~"], daemon=True).start()

    @property
    def rows(self) -> list[str]:
        above = [
            "".join(row[x].data for x in range(self._display.columns)).rstrip() for row in self._display.history.top
        ]
        return [*above, *(row.rstrip() for row in self._display.display)]

    @property
    def visible_rows(self) -> list[str]:
        return [row.rstrip() for row in self._display.display]

    @property
    def text(self) -> str:
        return "\n".join(self.rows).rstrip()

    async def see(self, wanted: str | Callable[[str], bool]) -> str:
        """All that is shown, as soon as `wanted` is in it."""
        shown = wanted if callable(wanted) else lambda text: wanted in text
        end_s = time.monotonic() + WAIT_S
        while not shown(self.text):
            assert time.monotonic() < end_s, self.text
            await asyncio.sleep(0.01)
        return self.text


class Chat:
    """A running chat: its terminal, its screen, and the model that says what it is told to."""

    def __init__(self, terminal: Terminal, screen: app.Screen, gemma: ScriptedGemma) -> None:
        self.terminal, self.screen, self.gemma = terminal, screen, gemma
        self.type, self.paste, self.see = terminal.type, terminal.paste, terminal.see

    @property
    def text(self) -> str:
        return self.terminal.text

    async def answered(self, text: str) -> None:
        """Waits until `text` has been said and nothing goes on."""
        await self.see(lambda shown: text in shown and not self.screen.busy)

    async def stopping(self) -> None:
        """Waits until the answer on its way has been told to stop; before that, its model may not go on."""
        talk = self.screen._talk
        await self.see(lambda _: talk.streaming is not None and talk.streaming.stop.asked)

    async def stop(self, more: Event) -> None:
        """Ctrl-C; the model, which waits for `more`, goes on once it is told to stop."""
        self.type("\x03")
        await self.stopping()
        more.set()

    @property
    def asked(self) -> list[str]:
        """The text of each message that the model got."""
        return ["".join(part.get("text", "") for part in message["content"]) for message in self.gemma.asked]


def play(
    scenario: Callable[[Chat], Awaitable[None]],
    *scripts: Script,
    columns: int = 80,
    rows: int = 24,
    files: Iterable[tuple[Any, Path]] = (),
    gemma: ScriptedGemma | None = None,
    begin: Callable[[Any], Conversation] | None = None,
    another: Callable[..., Conversation] | None = None,
    with_model: Callable[..., Conversation] | None = None,
    leave: bool = True,
) -> Chat:
    """Plays `scenario` with a chat whose model answers by `scripts`; afterwards the chat has ended.

    With `leave` it is left at the end, else `scenario` sees to that.
    """
    held = [said for script in scripts for said in script if isinstance(said, Event)]
    gemma = gemma or ScriptedGemma(scripts)

    async def played() -> Chat:
        with create_pipe_input() as keys:
            terminal = Terminal(keys, columns, rows)
            output = Vt100_Output(terminal, lambda: terminal.size, enable_cpr=False)
            with create_app_session(input=keys, output=output):
                opening = SimpleNamespace(
                    first=begin or (lambda _: Conversation(gemma)),
                    another=another,
                    check=lambda folder: None,
                    with_model=with_model,
                    max_tokens=2048,
                    save=False,
                )
                screen = app.Screen(opening, list(files), InMemoryHistory(), False, output)
                chat = Chat(terminal, screen, gemma)
                talk = asyncio.create_task(screen.talk())
                try:
                    await asyncio.wait_for(scenario(chat), 2 * WAIT_S)
                    if leave:
                        screen.leave()
                    await asyncio.wait_for(talk, WAIT_S)
                finally:
                    for event in held:
                        event.set()
                    screen.leave()
        return chat

    return asyncio.run(played())
