"""The chat on a screen: what keys bring, and what is shown. What goes on between is `talk.py`'s."""

from __future__ import annotations

import asyncio
import errno
import os
import signal
import textwrap
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn, TypeVar

from prompt_toolkit.history import History
from prompt_toolkit.output import Output

from gemma_mlx.terminal.chat.commands import attaches, is_command, run_command
from gemma_mlx.terminal.chat.history import history
from gemma_mlx.terminal.chat.media_commands import attach_dropped, attach_file
from gemma_mlx.terminal.chat.opening import Opening
from gemma_mlx.terminal.chat.waiting import LONG_PASTE_CHARACTERS, Message, PastedText, Waiting
from gemma_mlx.terminal.failures import INTERRUPTED, end_now, exit_code_of, show_warnings_in_one_line
from gemma_mlx.terminal.safe import visible, visible_line
from gemma_mlx.terminal.screen.answering import DIM, PLAIN
from gemma_mlx.terminal.screen.aside import Aside
from gemma_mlx.terminal.screen.asking import Asking
from gemma_mlx.terminal.screen.completion import CommandCompleter
from gemma_mlx.terminal.screen.keys import key_bindings
from gemma_mlx.terminal.screen.layout import PROMPT, input_line, terminal_output
from gemma_mlx.terminal.screen.printer import Printer
from gemma_mlx.terminal.screen.sending import Sending
from gemma_mlx.terminal.screen.talk import ModelLostError, Talk
from gemma_mlx.terminal.screen.work import Work

if TYPE_CHECKING:
    from PIL import Image

    from gemma_mlx.answer import Reply
    from gemma_mlx.inputs.media import MediaKind
    from gemma_mlx.tasks.conversation import Conversation
    from gemma_mlx.tasks.windows import Samples

T = TypeVar("T")
Files = Sequence[tuple["MediaKind", Path]]
ROWS_BELOW = 6
"""Left for the chips, the input line and the status line when the live area is drawn."""
THUMBNAIL_COLUMNS, THUMBNAIL_ROWS = 32, 8


def on_screen(opening: Opening, files: Files, quiet: bool) -> NoReturn:
    """Holds the chat with `files` in its first message, and ends the process: with 0, unless there never was a chat.

    Nobody waits for what is at work then, such as weights that load, or a screenshot for which no window was chosen.
    """
    screen = Screen(opening, files, history(opening.save), quiet)
    asyncio.run(screen.talk())
    end_now(screen.exit_code)


class Screen:
    """A `Surface` with an input line that is alive while the model loads and answers.

    What belongs to the screen happens on one asyncio loop; the model has a thread of its own, and files others.
    """

    def __init__(
        self,
        opening: Opening,
        files: Files,
        past: History,
        quiet: bool,
        output: Output | None = None,
    ) -> None:
        self.waiting = Waiting()
        self.device: int | None = None
        self.asking = Asking(self.redraw)
        self.speaking = False
        self.exit_code = 0
        """Of the error for which there is no chat, or of an interrupt from outside."""
        self._opening, self._files, self._quiet = opening, files, quiet
        self._hands = ThreadPoolExecutor(2, thread_name_prefix="hands")
        self._work = Work(lambda error: self._show_wrapped(f"error: {error}"), self.redraw)
        self._leaving = self._warned = False
        self._talk: Talk
        self._sending: Sending
        self._session = input_line(
            live=self._live,
            chips=lambda: self.waiting.lines(self.columns),
            status=lambda: self._talk.status_line(self.columns),
            keys=key_bindings(self, self.asking),
            completer=CommandCompleter(),
            history=past,
            output=output or terminal_output(),
        )
        self._printer = Printer(self._session.app)

    async def talk(self) -> None:
        """Holds the chat until it is left."""
        loop = asyncio.get_running_loop()
        self._talk = Talk(self, self._opening)
        self._sending = Sending(self, self._talk, self._work)
        show_warnings_in_one_line(Aside(loop, self))
        for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
            loop.add_signal_handler(number, self._signalled, number)
        self._sending.do(self._begin, attaches=True)
        try:
            await self._session.prompt_async(handle_sigint=False, pre_run=self._leave_if_asked)
        except EOFError:
            pass
        except OSError as error:
            if error.errno != errno.EIO:  # the terminal is gone
                raise
        finally:
            await self._end()

    async def _end(self) -> None:
        """Keeps the answer on its way, saves the chat, and waits for nothing else."""
        self.leave()
        if self.asking.for_keys:
            self.asking.key("escape")
        await self._work.end(lambda: self._talk.busy)
        await self._talk.end()
        with suppress(OSError):
            self._printer.flush()
        self._hands.shutdown(wait=False, cancel_futures=True)

    def _signalled(self, number: signal.Signals) -> None:
        """Leaves; once that is going on, Ctrl-C on the terminal of before ends it at once."""
        self.exit_code = INTERRUPTED if number == signal.SIGINT else self.exit_code
        if self._leaving and not self._session.app.is_running:
            end_now(self.exit_code)
        self.leave()

    async def _begin(self) -> None:
        try:
            await self._talk.begin()
        except Exception as error:
            self._leave_for(error)
            raise
        for kind, path in self._files:
            await attach_file(self, kind, path)

    def _leave_for(self, error: Exception) -> None:
        """There is no chat, because of `error`."""
        self.exit_code = exit_code_of(error)
        self.leave()

    # What keys bring

    def sent(self, text: str) -> None:
        """A line was sent: a command is done at once, a message when its turn has come."""
        self._warned = False
        line = text.strip()
        if is_command(line):
            self.show(f"{DIM}{PROMPT}{visible_line(line)}{PLAIN}\n")
            self._sending.do(partial(run_command, self, line), attaches(line))
        elif line or self.waiting.chips or self._talk.held:
            self._work.start(self._sending.send(line))

    def pasted(self, text: str) -> None:
        """Pasted text goes into the line; a long one becomes a chip, and files are attached after a yes."""
        from gemma_mlx.terminal.screen.dropped import dropped_paths

        if len(text) > LONG_PASTE_CHARACTERS:
            self.waiting.chips.append(PastedText(text))
        elif (dropped := dropped_paths(text)) is not None:
            self._sending.do(partial(attach_dropped, self, text, dropped), attaches=True)
        else:
            self.put(text)
        self.redraw()

    def interrupted(self, typed: str) -> bool:
        """Ctrl-C: stops the answer; after that empties the line; twice in an empty one, leaves. Whether to empty it."""
        if self.asking.for_keys:
            self.asking.key("escape")
            return False
        if self._talk.interrupt():
            return False
        if not typed and self._warned:
            self.leave()
        elif not typed:
            self.say("Ctrl-C once more, Ctrl-D or /quit leaves")
        self._warned = not typed
        return True

    def removed(self) -> None:
        """Backspace in an empty line: what came last waits no more."""
        self.waiting.drop_last()

    def leave(self) -> None:
        """Ends the input line, and what goes on: no message that waits is answered any more."""
        self._leaving = True
        self._talk.stop()
        if unsent := len(self.waiting.messages):
            self.waiting.messages.clear()
            self.say(f"{unsent} message{'s' * (unsent != 1)} waited and will not be sent")
        self._leave_if_asked()

    def _leave_if_asked(self) -> None:
        """Ends the input line; one that has not begun, when it does."""
        if self._leaving and self._session.app.is_running and not self._session.app.is_done:
            self._session.app.exit(exception=EOFError())

    # What is shown

    @property
    def columns(self) -> int:
        return self._printer.columns

    def note(self, line: str) -> None:
        if not self._quiet:
            self.say(line)

    def say(self, line: str) -> None:
        self._show_wrapped(line, DIM)

    def _show_wrapped(self, line: str, style: str = "") -> None:
        for part in textwrap.wrap(visible_line(line), max(20, self.columns - 1)) or [""]:
            self.show(f"{style}{part}{PLAIN if style else ''}\n")

    def show(self, text: str) -> None:
        self._printer.print(text)

    def draw(self, picture: Image.Image) -> None:
        from gemma_mlx.terminal.screen.thumbnail import graphics_here, thumbnail

        columns = min(THUMBNAIL_COLUMNS, self.columns - 2)
        self.show(thumbnail(picture, graphics_here(os.environ), columns, THUMBNAIL_ROWS))

    def put(self, text: str) -> None:
        self._session.default_buffer.insert_text(visible(text))

    def put_back(self, message: Message) -> None:
        self.waiting.chips = [*message.chips, *self.waiting.chips]
        if len(message.typed) > LONG_PASTE_CHARACTERS or (message.typed and self._session.default_buffer.text):
            self.waiting.chips.append(PastedText(message.typed))
        else:
            self.put(message.typed)

    def redraw(self) -> None:
        self._session.app.invalidate()

    async def ask_yes(self, question: str) -> bool:
        return await self.asking.yes(question)

    def _live(self) -> str:
        if asked := self.asking.line(self.columns):
            return asked
        streaming = self._talk.streaming
        return streaming.live(self.columns, max(1, self._printer.rows - ROWS_BELOW)) if streaming is not None else ""

    # What goes on

    @property
    def busy(self) -> bool:
        return self._talk.busy

    @property
    def overtaking(self) -> bool:
        return self._sending.overtaking

    @property
    def last_reply(self) -> Reply | None:
        return self._talk.last_reply

    async def conversation(self) -> Conversation:
        return await self._talk.conversation()

    async def turn(self) -> None:
        await self._sending.turn()

    async def apart(self, job: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._hands, job)

    async def write_down(self, samples: Samples) -> str | None:
        return await self._talk.write_down(samples)

    async def answer_again(self) -> None:
        await self._talk.answer_again()
        await self._talk.answer_all()

    async def record(self, way: str) -> None:
        from gemma_mlx.terminal.screen.speaking import speak

        await speak(self, way)

    async def change_chat(self, name: str | None) -> None:
        await self._talk.change_chat(name)

    async def change_model(self, folder: str) -> None:
        try:
            await self._talk.change_model(folder)
        except ModelLostError as error:
            self._leave_for(error)
            raise
