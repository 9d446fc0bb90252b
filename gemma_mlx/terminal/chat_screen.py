"""A conversation on a terminal or a pipe: lines in, answers out, and the commands that begin with a slash."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import cast

from gemma_mlx.answer import Reply
from gemma_mlx.errors import GemmaError, InputError, UsageError
from gemma_mlx.inputs.media import MediaKind
from gemma_mlx.tasks.conversation import Conversation
from gemma_mlx.terminal.answering import cut_note, prefill_progress, show_answer, speed
from gemma_mlx.terminal.failures import Interrupt, report
from gemma_mlx.terminal.keyboard import CancelledLineError, ReadLine
from gemma_mlx.terminal.options import DETAILS
from gemma_mlx.terminal.output import Output, UnwritableError

HELP = """\
/image PATH   picture for the next message
/video PATH   video for the next message; /audio PATH adds its sound
/audio PATH   sound for the next message
/detail N     tokens per picture, 70-1120 or auto
/think on|off|N thinking first, at most N tokens of it
/system TEXT  instructions; empty: none
/drop         take back what waits for the next message
/reset        forget the conversation
/help         this list
/quit         leave (or Ctrl-D)
Ctrl-C stops an answer and keeps it.
Up brings back earlier messages.
"""


class ChatScreen:
    """Runs a conversation until its lines end. What fails is told in one line, and the conversation goes on."""

    def __init__(self, conversation: Conversation, output: Output, read_line: ReadLine, max_tokens: int) -> None:
        self._conversation = conversation
        self._output = output
        self._read_line = read_line
        self._max_tokens = max_tokens
        self._failed = False
        self._typed = ""  # a message that could not be answered, to be sent again
        self._leaving = False

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
        return self._failed

    def _take(self, line: str) -> None:
        try:
            if line.startswith("/"):
                self._command(line)
            else:
                self._turn(line)
        except UnwritableError:
            raise
        except GemmaError as error:
            self._failed = True
            if not line.startswith("/"):
                self._typed = line
            report(error)

    def _turn(self, text: str) -> None:
        conversation, output = self._conversation, self._output
        with Interrupt() as interrupt:
            answer = conversation.ask(text, prefill_progress(output, interrupt))
            try:
                show_answer(answer, output, interrupt)
            except KeyboardInterrupt:
                output.clear_status()
        reply = answer.reply
        if not conversation.keep(reply):
            self._typed = text
            output.say("there is no answer yet; the message was not kept, and waits to be sent again")
            return
        if note := cut_note(reply, self._max_tokens):
            output.note(note)
        output.note(self._gauge(reply))

    def _gauge(self, reply: Reply) -> str:
        used_tokens = reply.prompt_tokens + reply.generated_tokens
        told = [
            f"re-used {reply.reused_tokens:,} of {reply.prompt_tokens:,} tokens",
            f"{reply.thought_tokens:,} tokens of thought" if reply.thought_tokens else None,
            speed(reply),
            f"context {used_tokens:,} of {self._conversation.context_tokens:,}",
        ]
        return ", ".join(figure for figure in told if figure)

    def _command(self, line: str) -> None:
        name, _, rest = line.partition(" ")
        rest = rest.strip()
        if name in ("/image", "/video", "/audio"):
            self._attach(cast("MediaKind", name[1:]), rest)
        elif name == "/drop":
            self._drop()
        elif name == "/detail":
            self._set_detail(rest)
        elif name == "/think":
            self._set_thinking(rest)
        elif name == "/system":
            self._conversation.system = rest or None
            self._output.note("the system message is set" if rest else "there is no system message now")
        elif name == "/reset":
            self._conversation.reset()
            self._output.note("everything is forgotten")
        elif name == "/help":
            for help_line in HELP.splitlines():
                self._output.say(help_line)
        elif name == "/quit":
            self._leaving = True
        else:
            raise UsageError(f"there is no command {name}; /help lists them")

    def _attach(self, kind: MediaKind, text: str) -> None:
        if not text:
            raise UsageError(f"/{kind} needs a path: /{kind} FILE")
        media = self._conversation.attach(kind, _path(text))
        waiting = len(self._conversation.waiting)
        self._output.note(media.label + (f" ({waiting} attached)" if waiting > 1 else ""))

    def _drop(self) -> None:
        labels = [media.label for media in self._conversation.drop_waiting()]
        self._output.note(f"taken back: {', '.join(labels)}" if labels else "nothing waits for the next message")

    def _set_detail(self, text: str) -> None:
        if text not in ("auto", *map(str, DETAILS)):
            raise UsageError(f"/detail takes one of {', '.join(map(str, DETAILS))} or auto, not {text!r}")
        self._conversation.detail = "auto" if text == "auto" else int(text)
        self._output.note(
            f"pictures attached from now on take {'what they need' if text == 'auto' else f'up to {text} tokens'}"
        )

    def _set_thinking(self, text: str) -> None:
        if text.isdecimal() and text.isascii() and len(text) < 10:
            self._conversation.thinking = int(text)
        elif text in ("on", "off"):
            self._conversation.thinking = text == "on"
        else:
            raise UsageError(f"/think takes on, off or a number of tokens, not {text!r}")
        most = self._conversation.thinking
        state = "on" if most is True else f"on, for at most {most:,} tokens" if most else "off"
        self._output.note(f"thinking is {state}")


def _path(text: str) -> Path:
    """The file that was typed, dragged in (with quotes or backslashes) or named with ~."""
    try:
        path = Path(text).expanduser()
        if path.exists():
            return path
        pieces = shlex.split(text)
        return Path(pieces[0]).expanduser() if len(pieces) == 1 else path
    except (ValueError, OSError, RuntimeError) as error:
        raise InputError(
            f"cannot find the file {text!r} ({error}); check its name, and quote it fully or not at all"
        ) from error
