"""What goes on between the screen and the model: loading, messages in their order, and answers on their way."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Protocol

from gemma_mlx.errors import GemmaError
from gemma_mlx.terminal.answering import cut_note
from gemma_mlx.terminal.chat.opening import Left, Opening
from gemma_mlx.terminal.chat.surface import Surface
from gemma_mlx.terminal.chat.turn_commands import tell_notes
from gemma_mlx.terminal.chat.waiting import Message
from gemma_mlx.terminal.failures import one_line_of
from gemma_mlx.terminal.screen.answering import Streaming
from gemma_mlx.terminal.screen.aside import Aside
from gemma_mlx.terminal.screen.model_thread import ModelThread, Stop
from gemma_mlx.terminal.screen.said import message_lines, turn_lines
from gemma_mlx.terminal.screen.status import Status

if TYPE_CHECKING:
    from gemma_mlx.answer import Answer, Reply
    from gemma_mlx.tasks.conversation import Conversation
    from gemma_mlx.tasks.windows import Samples

Ask = Callable[[Callable[[int, int], None]], "Answer"]


class ModelLostError(GemmaError):
    """There is no model any more, so no chat."""


class TalkingSurface(Surface, Protocol):
    """A surface that answers are shown on while they come."""

    @property
    def columns(self) -> int: ...
    def show(self, text: str) -> None:
        """Shows finished lines, which hold nothing that a terminal obeys but styles of ours."""
        ...

    def redraw(self) -> None: ...


class Talk:
    """One answer at a time; messages sent meanwhile wait. Its methods are called on the screen's loop."""

    def __init__(self, surface: TalkingSurface, opening: Opening) -> None:
        self.status = Status()
        self.streaming: Streaming | None = None
        self.held = False
        """Whether messages wait for the one before them to be sent again: without it, they may make no sense."""
        self._answering = False
        self._writing: Stop | None = None
        """Of the speech that is written down, while it is."""
        self.last_reply: Reply | None = None
        self.thread = ModelThread()
        self._surface, self._opening = surface, opening
        self._teller = Aside(asyncio.get_running_loop(), surface)
        self._conversation: asyncio.Future[Conversation] = asyncio.get_running_loop().create_future()
        self._leaving: asyncio.Future[Left] | None = None
        """The chat whose model is let go of, while its warm cache is written."""

    async def conversation(self) -> Conversation:
        """The conversation, once the model is loaded."""
        return await asyncio.shield(self._conversation)

    async def begin(self) -> None:
        """Loads the model, and the chat that is gone on with."""
        try:
            found = await self.thread.do(lambda: self._opening.first(self._teller))
        except BaseException:
            self._conversation.cancel()  # whoever waits for it waits for nothing
            raise
        self._opened(found)

    @property
    def busy(self) -> bool:
        return self._answering or self.streaming is not None

    def stop(self) -> None:
        """The answer on its way stops soon, and what it has said is kept; speech is not written down any further."""
        for stop in self._stops:
            stop.asked = True

    def interrupt(self) -> bool:
        """Stops the answer on its way, or else the speech being written down; False where all that stops already."""
        going_on = [stop for stop in self._stops if not stop.asked]
        for stop in going_on[:1]:
            stop.asked = True
        return bool(going_on)

    @property
    def _stops(self) -> list[Stop]:
        stops = [self.streaming.stop if self.streaming is not None else None, self._writing]
        return [stop for stop in stops if stop is not None]

    async def answer_all(self) -> None:
        """Answers the messages that wait, one after the other, unless that goes on already."""
        await self.conversation()
        if self.busy or self.held:
            return
        waiting, self._answering = self._surface.waiting, True
        answered = True
        try:
            while waiting.messages and waiting.messages[0].whole and answered:
                answered = False
                answered = await self._answered(waiting.messages.pop(0))
        finally:
            self._answering = False
            if not answered and waiting.messages:
                self._hold(len(waiting.messages))

    def _hold(self, count: int) -> None:
        self.held = True
        self._surface.say(f"{count} behind it wait{'s' * (count == 1)} too; Enter in an empty line sends on")

    async def answer_again(self) -> None:
        """Asks the last message again."""
        conversation = await self.conversation()
        if not await self._shown(conversation, conversation.retry):
            self._surface.say("there is no new answer; the old one stays")

    async def write_down(self, samples: Samples) -> str | None:
        """What is said in `samples`; None where that was stopped."""
        from gemma_mlx.tasks.dictation import dictate

        gemma, stop = (await self.conversation()).gemma, Stop()
        self._writing = stop
        self._surface.redraw()
        try:
            return await self.thread.do(lambda: dictate(gemma, samples, lambda: stop.asked))
        finally:
            self._writing = None
            self._surface.redraw()

    async def change_chat(self, name: str | None) -> None:
        before = await self.conversation()
        self._conversation = asyncio.get_running_loop().create_future()  # what is typed meanwhile is for the next chat
        try:
            found = await self.thread.do(lambda: self._opening.another(before, name, self._teller))
        except BaseException:
            self._found(before)
            raise
        self.last_reply = self.status.reply = None
        self._opened(found)

    async def change_model(self, folder: str) -> None:
        """Lets go of the model before it loads the other one: both may not fit. Where that fails, the first is back.

        ModelLostError where the first cannot be loaded again either.
        """
        before = await self.conversation()
        self._opening.check(folder)
        self._conversation = asyncio.get_running_loop().create_future()
        self._surface.redraw()
        self._leaving = asyncio.ensure_future(self.thread.do(partial(Left, before, self._teller)))
        left = await asyncio.shield(self._leaving)
        self._leaving = None
        del before
        try:
            found = await self.thread.do(lambda: self._opening.with_model(folder, left, self._teller))
        except Exception as error:
            self._found(await self._restored(left, error))
            raise
        self.last_reply = self.status.reply = None
        self._found(found)
        self._surface.note(f"{found.gemma.name} answers from now on")

    async def _restored(self, left: Left, error: Exception) -> Conversation:
        """What was `left`, with the model of before, after `error` with another one."""
        try:
            return await self.thread.do(lambda: self._opening.with_model(left.model, left, self._teller))
        except Exception as again:
            self._conversation.cancel()  # whoever waits for it waits for nothing
            raise ModelLostError(
                f"{one_line_of(error)}; nor can the model of before be loaded again: {one_line_of(again)}"
            ) from again

    async def end(self) -> None:
        """Saves what is to be saved, once the job at work has ended. A model that still loads is not waited for."""
        self.stop()
        if self._leaving is not None:
            await asyncio.wait([self._leaving])
        if self._conversation.done() and not self._conversation.cancelled():
            await self.thread.do(self._conversation.result().close)
            tell_notes(self._surface, self._conversation.result())
            await self.thread.end()

    async def _answered(self, message: Message) -> bool:
        """Shows the message and its answer; False where it waits to be sent again."""
        conversation, surface = await self.conversation(), self._surface
        surface.show(message_lines(message.typed, [chip.label for chip in message.chips]))
        conversation.waiting = [*message.media]
        try:
            answered = await self._shown(conversation, partial(self._ask, conversation, message))
        except Exception:
            surface.put_back(message)
            raise
        finally:
            conversation.waiting = []
        if not answered:
            surface.say("there is no answer yet; the message was not kept, and waits to be sent again")
            surface.put_back(message)
        return answered

    def _ask(self, conversation: Conversation, message: Message, progress: Callable[[int, int], None]) -> Answer:
        """On the model's thread."""
        if any(item.kind == "audio" for item in message.media):
            self._warn_of_late_sound(conversation, message)
        return conversation.ask(message.text, progress)

    def _warn_of_late_sound(self, conversation: Conversation, message: Message) -> None:
        """What was typed or answered since a sound was attached may have pushed it out of hearing."""
        from gemma_mlx.tasks.dictation import LAST_HEARD_TOKENS, heard_until

        end = heard_until(conversation, message.media, message.text)
        if end > LAST_HEARD_TOKENS:
            self._teller.say(
                f"the sound ends at token {end:,}; the model may not hear what stands past {LAST_HEARD_TOKENS}: "
                "/reset begins anew, /mic dictate writes speech down"
            )

    async def _shown(self, conversation: Conversation, ask: Ask) -> bool:
        """Shows the answer that `ask` gives and keeps it; False where it was stopped or cut before its first word."""
        surface = self._surface
        streaming = self.streaming = Streaming(surface.columns, surface.show, surface.redraw)
        surface.redraw()
        try:
            reply = await streaming.run(self.thread, ask)
            kept = reply is not None and await self.thread.do(lambda: conversation.keep(reply))
            await self.thread.do(conversation.save_cache_if_due)
        finally:
            self.streaming = None
            self._refresh(conversation)
            tell_notes(surface, conversation)
        if reply is not None:
            self.last_reply = self.status.reply = reply
            if note := cut_note(reply, self._opening.max_tokens):
                surface.say(note)
        return kept

    def _opened(self, conversation: Conversation) -> None:
        """Where a chat is gone on with, its end is shown, and a message that no answer came to waits to be sent."""
        turns = conversation.turns
        if len(turns) > 1:
            self._surface.note(f"going on after {len(turns):,} turns; /export writes them all into a file")
        if turns:
            self._surface.show(turn_lines(turns[-1], self._surface.columns))
        self._surface.put_back(Message(conversation.unsent_text, tuple(conversation.waiting)))
        self._found(conversation)

    def _found(self, conversation: Conversation) -> None:
        if self._conversation.done():
            self._conversation = asyncio.get_running_loop().create_future()
        self._conversation.set_result(conversation)
        self._refresh(conversation)

    def status_line(self, columns: int) -> str:
        """The line at the bottom, also right after a turn was taken back."""
        if self._conversation.done() and not self._conversation.cancelled():
            self.status.used_tokens = self._conversation.result().used_tokens
        self.status.activity = self._activity
        return self.status.line(columns)

    @property
    def _activity(self) -> str:
        """What is being done now; empty where nothing is."""
        if not self._conversation.done():
            return "loading"
        if self.streaming is not None:
            return "answering"
        return "writing down" if self._writing is not None else ""

    def _refresh(self, conversation: Conversation) -> None:
        """Brings the status line up to date."""
        gemma, status = conversation.gemma, self.status
        memory = gemma.memory()
        status.model, status.miniature = gemma.name, gemma.miniature
        status.context_tokens = conversation.context_tokens
        status.memory_bytes, status.limit_bytes = memory.used_bytes, memory.limit_bytes
        self._surface.redraw()
