"""From the input line to the queue of messages: none overtakes another, nor what was to be attached to it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

from gemma_mlx.terminal.chat.waiting import Message
from gemma_mlx.terminal.screen.talk import Talk, TalkingSurface
from gemma_mlx.terminal.screen.work import Work


class Sending:
    """A message goes out with what the commands typed before it attach, and with nothing that those after it attach.

    All begin at once, so that a screenshot shows the moment it was asked for; what they read is attached in turn:

        /image A    reads ......... attached
        What is A?  waits for A             sent with A
        /image B    reads ... waits for the message    attached
    """

    def __init__(self, surface: TalkingSurface, talk: Talk, work: Work) -> None:
        self._surface, self._talk, self._work = surface, talk, work
        self._commands: set[asyncio.Task[bool]] = set()
        self._unsettled: set[asyncio.Future[Any]] = set()
        """Commands that may still attach something, and messages that may still get something."""
        self._before: dict[asyncio.Task[Any] | None, set[asyncio.Future[Any]]] = {}
        """For each command, what was unsettled when it was typed."""
        self._overtaking: set[asyncio.Task[Any] | None] = set()
        """Commands that were typed while messages waited."""

    def do(self, command: Callable[[], Coroutine[Any, Any, None]], attaches: bool) -> None:
        """Begins `command`; messages sent from now on wait until it has ended."""
        task = self._work.start(command())
        self._before[task] = {*self._unsettled}
        self._commands.add(task)
        task.add_done_callback(self._commands.discard)
        task.add_done_callback(self._before.pop)
        if self._surface.waiting.messages:
            self._overtaking.add(task)
            task.add_done_callback(self._overtaking.discard)
        if attaches:
            self._settled_with(task)

    @property
    def overtaking(self) -> bool:
        """Asked in a command: whether messages waited when it was typed. Those typed since then wait for it."""
        return asyncio.current_task() in self._overtaking

    async def turn(self) -> None:
        """Called in a command: returns when all that was typed before it has what belongs to it."""
        if before := self._before.get(asyncio.current_task()):
            await asyncio.wait(before)

    def send(self, text: str) -> Coroutine[Any, Any, None]:
        """The message has its place in the queue at once; to be awaited is that it is answered.

        One that takes the place of a message that came back goes before those that wait behind it.
        """
        waiting = self._surface.waiting
        place = 0 if self._talk.held else len(waiting.messages)
        self._talk.held = False
        if not text and not waiting.chips:
            return self._talk.answer_all()
        if not self._commands:
            waiting.messages.insert(place, waiting.take(text))
            return self._talk.answer_all()
        message = Message(text, whole=False)
        waiting.messages.insert(place, message)
        settled: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._settled_with(settled)
        return self._send_after({*self._commands}, message, settled)

    def _settled_with(self, done: asyncio.Future[Any]) -> None:
        self._unsettled.add(done)
        done.add_done_callback(self._unsettled.discard)

    async def _send_after(
        self, commands: set[asyncio.Task[bool]], message: Message, settled: asyncio.Future[None]
    ) -> None:
        """Sends `message` as soon as it is whole, but not without what a command that failed was to attach."""
        try:
            done, _ = await asyncio.wait(commands)
            self._settle(message, all(command.result() for command in done))
        finally:
            settled.cancel()
        await self._talk.answer_all()

    def _settle(self, message: Message, attached: bool) -> None:
        waiting = self._surface.waiting
        if message not in waiting.messages:
            return  # taken back meanwhile
        place = waiting.messages.index(message)
        if attached:
            waiting.messages[place] = waiting.take(message.typed)
        else:
            del waiting.messages[place]
            self._surface.put_back(message)
            self._surface.say("the message was not sent: the command before it failed")
