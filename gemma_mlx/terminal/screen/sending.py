"""From the input line to the queue of messages: none overtakes another, nor what was to be attached to it."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

from gemma_mlx.terminal.chat.waiting import Message
from gemma_mlx.terminal.screen.talk import Talk, TalkingSurface


class Sending:
    """A message goes out with what the commands typed before it attach, even where these are still at work."""

    def __init__(self, surface: TalkingSurface, talk: Talk) -> None:
        self._surface, self._talk = surface, talk
        self._commands: set[asyncio.Task[bool]] = set()

    def follow(self, command: asyncio.Task[bool]) -> None:
        """Messages sent from now on wait for `command`, which gives whether it could be done."""
        self._commands.add(command)
        command.add_done_callback(self._commands.discard)

    def send(self, text: str) -> Coroutine[Any, Any, None]:
        """The message has its place in the queue at once; to be awaited is that it is answered."""
        waiting = self._surface.waiting
        if not self._commands:
            waiting.messages.append(waiting.take(text))
            return self._talk.answer_all()
        message = Message(text, whole=False)
        waiting.messages.append(message)
        return self._send_after({*self._commands}, message)

    async def _send_after(self, commands: set[asyncio.Task[bool]], message: Message) -> None:
        """Sends `message` as soon as it is whole, but not without what a command that failed was to attach."""
        done, _ = await asyncio.wait(commands)
        waiting = self._surface.waiting
        if message not in waiting.messages:
            return  # taken back meanwhile
        place = waiting.messages.index(message)
        if all(command.result() for command in done):
            waiting.messages[place] = waiting.take(message.typed)
        else:
            del waiting.messages[place]
            self._surface.put_back(message)
            self._surface.say("the message was not sent: the command before it failed")
        await self._talk.answer_all()
