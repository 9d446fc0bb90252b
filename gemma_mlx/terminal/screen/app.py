"""The chat on a screen: what is typed, what is answered, and what goes on beside it."""

from __future__ import annotations

import asyncio
import signal
import textwrap
from collections.abc import Callable, Coroutine, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from prompt_toolkit.history import History
from prompt_toolkit.output import Output

from gemma_mlx.errors import GemmaError
from gemma_mlx.terminal.answering import cut_note
from gemma_mlx.terminal.commands import is_command, run_command
from gemma_mlx.terminal.failures import one_line_of, show_warnings_in_one_line
from gemma_mlx.terminal.keyboard import history
from gemma_mlx.terminal.media_commands import attach_file
from gemma_mlx.terminal.safe import visible, visible_line
from gemma_mlx.terminal.screen.answering import DIM, PLAIN, Streaming
from gemma_mlx.terminal.screen.aside import Aside
from gemma_mlx.terminal.screen.completion import CommandCompleter
from gemma_mlx.terminal.screen.keys import key_bindings
from gemma_mlx.terminal.screen.layout import PROMPT, input_line, terminal_output
from gemma_mlx.terminal.screen.model_thread import ModelThread
from gemma_mlx.terminal.screen.printer import Printer
from gemma_mlx.terminal.screen.question import Question
from gemma_mlx.terminal.screen.status import Status
from gemma_mlx.terminal.waiting import LONG_PASTE_CHARACTERS, Message, PastedText, Waiting

if TYPE_CHECKING:
    from PIL import Image

    from gemma_mlx.inputs.media import MediaKind
    from gemma_mlx.tasks.conversation import Conversation
    from gemma_mlx.tasks.kept_chats import KeptChat
    from gemma_mlx.terminal.loading import Teller
    from gemma_mlx.terminal.screen.dropped import Dropped

T = TypeVar("T")
ROWS_BELOW = 6
"""Left for the chips, the input line and the status line when the live area is drawn."""


def on_screen(
    begin: Callable[[Teller], Conversation], files: Sequence[tuple[MediaKind, Path]], max_tokens: int, quiet: bool
) -> bool:
    """Holds the conversation that `begin` gives with `files` in the first message. Whether there never was one."""
    screen = Screen(begin, files, history(), max_tokens, quiet)
    asyncio.run(screen.talk())
    return screen.failed


class Screen:
    """A `Surface` with an input line that is alive while the model loads and answers.

    What belongs to the screen happens on one asyncio loop; the model has a thread of its own, and files another.
    """

    def __init__(
        self,
        begin: Callable[[Teller], Conversation],
        files: Sequence[tuple[MediaKind, Path]],
        history: History,
        max_tokens: int,
        quiet: bool,
        output: Output | None = None,
    ) -> None:
        self.waiting = Waiting()
        self.kept: KeptChat | None = None
        self.device: int | None = None
        self.failed = False
        """Whether the model could not be loaded."""
        self._begin, self._files, self._max_tokens, self._quiet = begin, files, max_tokens, quiet
        self._thread, self._hands = ModelThread(), ThreadPoolExecutor(2, thread_name_prefix="hands")
        self._status = Status()
        self._streaming: Streaming | None = None
        self._question: Question | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._leaving = self._warned = False
        self._loop: asyncio.AbstractEventLoop
        self._loaded: asyncio.Future[Conversation]
        self._session = input_line(
            live=self._live,
            chips=lambda: self.waiting.lines(self._printer.columns),
            status=lambda: self._status.line(self._printer.columns),
            keys=key_bindings(self),
            completer=CommandCompleter(),
            history=history,
            output=output or terminal_output(),
        )
        self._printer = Printer(self._session.app)

    async def talk(self) -> None:
        """Holds the conversation until it is left."""
        loop = asyncio.get_running_loop()
        self._loop, self._loaded = loop, loop.create_future()
        show_warnings_in_one_line(Aside(loop, self))
        for number in (signal.SIGTERM, signal.SIGHUP):
            loop.add_signal_handler(number, self.leave)
        self._start(self._load_model())
        try:
            await self._session.prompt_async(handle_sigint=False)
        except EOFError:
            pass
        finally:
            if self._streaming is not None:
                self._streaming.stop.asked = True
            await asyncio.gather(*self._tasks, return_exceptions=True)
            self._printer.flush()
            self._thread.end()
            self._hands.shutdown(wait=False, cancel_futures=True)

    async def _load_model(self) -> None:
        try:
            conversation = await self._thread.do(lambda: self._begin(Aside(self._loop, self)))
        except BaseException:
            self.failed = True
            self.leave()
            raise
        self._status.activity = ""
        self._loaded.set_result(conversation)
        self._refresh(conversation)
        for kind, path in self._files:
            await attach_file(self, kind, path)
        self._next()

    # What keys bring

    @property
    def asks_for_keys(self) -> bool:
        return self._question is not None

    def key(self, name: str) -> None:
        if self._question is not None:
            self._question.key(name)
        self.redraw()

    def sent(self, text: str) -> None:
        """A line was sent: a command is done at once, a message when its turn has come."""
        self._warned = False
        line = text.strip()
        if is_command(line):
            self.show(f"{DIM}{PROMPT}{visible_line(line)}{PLAIN}\n")
            self._start(run_command(self, line))
        elif line or self.waiting.chips:
            self.waiting.messages.append(self.waiting.take(line))
            self._next()

    def pasted(self, text: str) -> None:
        """Pasted text goes into the line; a long one becomes a chip, and files are attached after a yes."""
        from gemma_mlx.terminal.screen.dropped import dropped_paths

        if len(text) > LONG_PASTE_CHARACTERS:
            self.waiting.chips.append(PastedText(text))
        elif (dropped := dropped_paths(text)) is not None:
            self._start(self._attach_dropped(text, dropped))
        else:
            self.put(text)
        self.redraw()

    def interrupted(self, typed: str) -> bool:
        """Ctrl-C: stops the answer; else empties the line; twice in an empty one, leaves. Whether to empty the line."""
        if self._streaming is not None:
            self._streaming.stop.asked = True
            return False
        if self._question is not None:
            self._question.key("escape")
        elif not typed and self._warned:
            self.leave()
        elif not typed:
            self.say("Ctrl-C once more, Ctrl-D or /quit leaves")
        self._warned = not typed
        return True

    def removed(self) -> None:
        """Backspace in an empty line: the last chip goes."""
        if self.waiting.chips:
            self.waiting.chips.pop()

    def leave(self) -> None:
        self._leaving = True
        if self._session.app.is_running and not self._session.app.is_done:
            self._session.app.exit(exception=EOFError())

    async def _attach_dropped(self, pasted: str, dropped: Dropped) -> None:
        """Attaches the files that a paste names after a yes; after a no, the paste is text."""
        names = ", ".join(path.name for path in dropped.paths)
        if not await self._ask_yes(f"attach {names}?"):
            self.put(pasted)
            return
        self.put(dropped.text)
        for path in dropped.paths:
            await attach_file(self, kind_by_ending(path), path)

    async def _ask_yes(self, text: str) -> bool:
        while self._question is not None:
            await self._question.answered()
            await asyncio.sleep(0)
        self._question = Question(text)
        self.redraw()
        try:
            return await self._question.answered()
        finally:
            self._question = None

    # What is shown

    def note(self, line: str) -> None:
        if not self._quiet:
            self.say(line)

    def say(self, line: str) -> None:
        """A line of any text, wrapped between words."""
        for part in textwrap.wrap(visible_line(line), max(20, self._printer.columns - 1)) or [""]:
            self.show(f"{DIM}{part}{PLAIN}\n")

    def show(self, text: str) -> None:
        self._printer.print(text)

    def draw(self, picture: Image.Image) -> None:
        import os

        from gemma_mlx.terminal.screen.thumbnail import graphics_here, thumbnail

        self.show(thumbnail(picture, graphics_here(os.environ), min(32, self._printer.columns - 2), 8))

    def put(self, text: str) -> None:
        self._session.default_buffer.insert_text(visible(text))

    def redraw(self) -> None:
        self._session.app.invalidate()

    def _live(self) -> str:
        columns, rows = self._printer.columns, max(1, self._printer.rows - ROWS_BELOW)
        if self._question is not None:
            return self._question.line()
        return self._streaming.live(columns, rows) if self._streaming is not None else ""

    def _error(self, error: BaseException) -> None:
        self.show(f"error: {visible_line(one_line_of(error))}\n")

    # What goes on

    async def conversation(self) -> Conversation:
        return await asyncio.shield(self._loaded)

    @property
    def busy(self) -> bool:
        return self._streaming is not None

    async def apart(self, job: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._hands, job)

    async def with_model(self, job: Callable[[], T]) -> T:
        return await self._thread.do(job)

    def _start(self, work: Coroutine[Any, Any, None]) -> None:
        """Does `work` beside the input line; what fails is one line."""

        async def told() -> None:
            try:
                await work
            except Exception as error:
                self._error(error)
            self.redraw()

        task = asyncio.get_running_loop().create_task(told())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _next(self) -> None:
        """Answers the first message that waits, once nothing else is answered."""
        if self._streaming is None and self._loaded.done() and self.waiting.messages and not self._leaving:
            message = self.waiting.messages.pop(0)
            self._streaming = Streaming(self._printer.columns, self.show, self.redraw)
            self._start(self._answer(message, self._streaming))

    async def _answer(self, message: Message, streaming: Streaming) -> None:
        conversation = await self.conversation()
        chips = "".join(f"  [{visible_line(media.label)}]\n" for media in message.media)
        said = visible(message.text).replace("\n", "\n" + " " * len(PROMPT))
        self.show(f"\n\x1b[1m{PROMPT}{said[:2000]}{PLAIN}\n{DIM}{chips}{PLAIN}")
        self._status.activity = "answering"
        try:
            conversation.waiting = [*message.media]
            reply = await streaming.run(self._thread, lambda progress: conversation.ask(message.text, progress))
            if reply is None or not conversation.keep(reply):
                self.say("there is no answer yet; the message was not kept, and waits to be sent again")
                self._put_back(message)
            else:
                if note := cut_note(reply, self._max_tokens):
                    self.say(note)
                self._status.reply = reply
        except GemmaError:
            self._put_back(message)
            raise
        finally:
            self._streaming, self._status.activity = None, ""
            self._refresh(conversation)
            self._next()

    def _put_back(self, message: Message) -> None:
        self.waiting.chips = [*message.media, *self.waiting.chips]
        if len(message.text) > LONG_PASTE_CHARACTERS:
            self.waiting.chips.append(PastedText(message.text))
        elif not self._session.default_buffer.text:
            self.put(message.text)

    def _refresh(self, conversation: Conversation) -> None:
        """Brings the status line up to date."""
        gemma = conversation.gemma
        memory = gemma.memory()
        status = self._status
        status.model, status.miniature = gemma.name, gemma.miniature
        status.used_tokens, status.context_tokens = conversation.used_tokens, conversation.context_tokens
        status.memory_bytes, status.limit_bytes = memory.used_bytes, memory.limit_bytes
        self.redraw()
