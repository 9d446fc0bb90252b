"""The chat as lines: taken from a pipe or typed one by one, answered as text that comes and stays as it is."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from gemma_mlx.errors import GemmaError, InputError, UsageError
from gemma_mlx.terminal.answering import cut_note, prefill_progress, show_answer, speed
from gemma_mlx.terminal.chat.commands import is_command, run_command
from gemma_mlx.terminal.chat.keyboard import CancelledLineError, ReadLine, piped_lines, typed_lines
from gemma_mlx.terminal.chat.media_commands import attach_file
from gemma_mlx.terminal.chat.opening import Left, Opening
from gemma_mlx.terminal.chat.turn_commands import tell_notes
from gemma_mlx.terminal.chat.waiting import Message, Waiting
from gemma_mlx.terminal.failures import Interrupt, report, show_warnings_in_one_line
from gemma_mlx.terminal.output import Output, UnwritableError, is_terminal

if TYPE_CHECKING:
    from PIL import Image

    from gemma_mlx.answer import Answer, Reply
    from gemma_mlx.inputs.media import MediaKind
    from gemma_mlx.tasks.conversation import Conversation

T = TypeVar("T")
Ask = Callable[[Callable[[int, int], None]], "Answer"]


def on_lines(opening: Opening, files: Sequence[tuple[MediaKind, Path]], quiet: bool) -> int:
    """Holds the chat with `files` in its first message. The exit code: 1 where a piped line failed."""
    output = Output(quiet)
    show_warnings_in_one_line(output)
    piped = not is_terminal(sys.stdin)
    if not piped:
        output.note("gemma-mlx chat: /help lists the commands, Ctrl-D leaves")
    read_line = piped_lines() if piped else typed_lines(opening.save)
    chat = LineChat(opening, opening.first(output), output, read_line, piped)
    for kind, path in files:
        asyncio.run(attach_file(chat, kind, path))
    failed = chat.run()
    return 1 if piped and failed else 0


class LineChat:
    """A `Surface` on which one thing happens after the other: a command or an answer ends before the next line is read.

    What fails is told in one line, and the conversation goes on.
    """

    def __init__(
        self, opening: Opening, conversation: Conversation, output: Output, read_line: ReadLine, piped: bool
    ) -> None:
        self.waiting = Waiting()
        self.last_reply: Reply | None = None
        self._opening = opening
        self.device: int | None = None
        self._conversation = conversation
        self._output = output
        self._read_line = read_line
        self._piped = piped
        """Whether nobody is there who could send a message again."""
        self._failed = False
        self._typed = ""  # what stands in the line before anything is typed
        self._leaving = False
        self._put_back_unsent()

    def run(self) -> bool:
        """Returns whether anything failed."""
        cancelled = False
        while not self._leaving:
            try:
                typed, self._typed = self._typed, ""
                line = self._read_line(typed).strip()
            except EOFError:
                break
            except CancelledLineError as cancel:
                if cancel.empty and cancelled:
                    break
                cancelled = cancel.empty
                if cancelled:
                    self._output.say("Ctrl-C once more, Ctrl-D or /quit leaves")
                continue
            except InputError as error:
                self._failed = True
                report(error)
                continue
            cancelled = False
            if line:
                self._take(line)
        self._conversation.close()
        tell_notes(self, self._conversation)
        return self._failed

    def _take(self, line: str) -> None:
        try:
            if is_command(line):
                asyncio.run(run_command(self, line))
            else:
                self._send(self.waiting.take(line))
        except UnwritableError:
            raise
        except GemmaError as error:
            self._failed = True
            report(error)

    def _send(self, message: Message) -> None:
        conversation = self._conversation
        conversation.waiting, kept = [*message.media], False
        try:
            kept = self._answer(lambda progress: conversation.ask(message.text, progress))
        finally:
            conversation.waiting = []
            if not kept and not self._piped:  # the next line of a pipe is another message
                self.put_back(message)
        if not kept:
            again = "" if self._piped else ", and waits to be sent again"
            self._output.say(f"there is no answer yet; the message was not kept{again}")

    def _put_back_unsent(self) -> None:
        """Where a chat is gone on with, a message that no answer came to waits to be sent; not for a pipe's lines."""
        unsent = Message(self._conversation.unsent_text, tuple(self._conversation.waiting))
        if not self._piped:
            self.put_back(unsent)
        elif unsent.label:
            self.say(f"the last message of this chat has no answer and is left out: {unsent.label}")

    def _answer(self, ask: Ask) -> bool:
        """Shows the answer that `ask` gives; False where it was stopped or cut before its first word."""
        output = self._output
        with Interrupt() as interrupt:
            answer = ask(prefill_progress(output, interrupt))
            try:
                show_answer(answer, output, interrupt)
            except KeyboardInterrupt:
                output.clear_status()
        reply = answer.reply
        if reply.generated_tokens:
            self.last_reply = reply
        kept = self._conversation.keep(reply)
        self._conversation.save_cache_if_due()
        tell_notes(self, self._conversation)
        if note := cut_note(reply, self._opening.max_tokens):
            (output.note if kept else output.say)(note)
        if kept:
            output.note(self._gauge(reply))
        self._failed |= not kept
        return kept

    def _gauge(self, reply: Reply) -> str:
        used_tokens = reply.prompt_tokens + reply.generated_tokens
        told = [
            f"re-used {reply.reused_tokens:,} of {reply.prompt_tokens:,} tokens",
            f"{reply.thought_tokens:,} tokens of thought" if reply.thought_tokens else None,
            speed(reply),
            f"context {used_tokens:,} of {self._conversation.context_tokens:,}",
        ]
        return ", ".join(figure for figure in told if figure)

    # What a command may do here

    @property
    def busy(self) -> bool:
        return False

    @property
    def overtaking(self) -> bool:
        return False

    async def conversation(self) -> Conversation:
        return self._conversation

    def note(self, line: str) -> None:
        self._output.note(line)

    def say(self, line: str) -> None:
        self._output.say(line)

    def draw(self, picture: Image.Image) -> None:
        """Lines have no pictures."""

    def put(self, text: str) -> None:
        self._typed = text

    def put_back(self, message: Message) -> None:
        self.waiting.chips = [*message.chips, *self.waiting.chips]
        self._typed = message.typed

    def leave(self) -> None:
        self._leaving = True

    async def turn(self) -> None:
        """Nothing was typed before that has not been done."""

    async def apart(self, job: Callable[[], T]) -> T:
        return job()

    async def answer_again(self) -> None:
        if not self._answer(self._conversation.retry):
            self._output.say("there is no new answer; the old one stays")

    async def record(self, way: str) -> None:
        raise UsageError("/mic needs the screen, a terminal without --plain; /audio FILE attaches a recording")

    async def ask_yes(self, question: str) -> bool:
        return False

    async def change_chat(self, name: str | None) -> None:
        self._conversation = self._opening.another(self._conversation, name, self._output)
        self.last_reply = None
        self._put_back_unsent()

    async def change_model(self, folder: str) -> None:
        """Lets go of the model before it loads the other one: both may not fit. Where that fails, the first is back."""
        self._opening.check(folder)
        left = Left(self._conversation, self._output)
        del self._conversation
        try:
            self._conversation = self._opening.with_model(folder, left, self._output)
        except GemmaError:
            self._conversation = self._opening.with_model(left.model, left, self._output)
            raise
        self.last_reply = None
        self.note(f"{self._conversation.gemma.name} answers from now on")
