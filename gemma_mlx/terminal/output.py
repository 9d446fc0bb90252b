"""stdout for the answer and nothing else; stderr for all that is said about it.

Answers to a terminal are made safe for it; to a file or a pipe they go as they are, in UTF-8. stderr is always safe.
"""

from __future__ import annotations

import errno
import os
import shutil
import sys
import textwrap
from contextlib import suppress
from typing import TextIO

from gemma_mlx.errors import GemmaError
from gemma_mlx.terminal.safe import visible, visible_line


class ReaderGoneError(Exception):
    """Whoever read our stdout has closed it: there is nobody to answer to."""


class UnwritableError(GemmaError):
    """stdout cannot be written: nothing more can be answered."""


def is_terminal(stream: TextIO | None) -> bool:
    return stream is not None and not stream.closed and stream.isatty()


class Output:
    """One command's output. `quiet` leaves errors and what must be known; the rest of stderr is silent."""

    def __init__(self, quiet: bool = False) -> None:
        self.quiet = quiet
        self._to_terminal = is_terminal(sys.stdout)
        self._notes_to_terminal = is_terminal(sys.stderr)
        self._styled = self._notes_to_terminal and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
        self._held_newlines = ""
        self._answer_begun = False
        self._thinking = False
        self._status_shown = False

    def answer(self, text: str) -> None:
        """Shows a piece of the answer at once. Newlines at the end wait for what follows them."""
        if not text:
            return
        self._end_thought()
        self.clear_status()
        text = self._held_newlines + text
        shown = text.rstrip("\n")
        self._held_newlines = text[len(shown) :]
        if shown:
            write_stdout(visible(shown) if self._to_terminal else shown)
            self._answer_begun = True

    def end_answer(self, whole: bool = True) -> None:
        """Ends the answer with exactly one newline. One that is not `whole` and has not begun leaves stdout empty."""
        self._end_thought()
        self.clear_status()
        self._held_newlines = ""
        begun, self._answer_begun = self._answer_begun, False
        if whole or begun:
            write_stdout("\n")

    def thought(self, text: str) -> None:
        """Shows a piece of the model's thinking, on stderr."""
        if text and not self.quiet:
            self.clear_status()
            self._thinking = True
            self._write_note(self._dim(visible(text)))

    def note(self, line: str) -> None:
        """Says something about the answer, unless quiet."""
        if not self.quiet:
            self.say(line)

    def say(self, line: str) -> None:
        """Says what must be known, quiet or not, on a line of stderr; a terminal gets it wrapped between words."""
        self._end_thought()
        self.clear_status()
        line = visible_line(line)
        if self._notes_to_terminal:
            line = "\n".join(textwrap.wrap(line, max(20, shutil.get_terminal_size().columns)))
        self._write_note(self._dim(line) + "\n")

    def error(self, message: str) -> None:
        """The one line of something that went wrong."""
        self._end_thought()
        self.clear_status()
        self._write_note(f"error: {visible_line(message)}\n")

    def status(self, line: str) -> None:
        """Shows what is going on, on a terminal only, until something else is shown."""
        if self.shows_status:
            self._write_note(f"\r\x1b[K{self._dim(visible_line(line))}")
            self._status_shown = True

    @property
    def shows_status(self) -> bool:
        """Whether anybody would see how far something has come."""
        return self._notes_to_terminal and not self.quiet

    @property
    def answers_to_terminal(self) -> bool:
        """Whether answers and notes may stand on the same screen."""
        return self._to_terminal

    def clear_status(self) -> None:
        """Takes away what `status` showed."""
        if self._status_shown:
            self._write_note("\r\x1b[K")
            self._status_shown = False

    def _end_thought(self) -> None:
        if self._thinking:
            self._thinking = False
            self._write_note("\n")

    def _dim(self, text: str) -> str:
        return f"\x1b[2m{text}\x1b[0m" if self._styled else text

    def _write_note(self, text: str) -> None:
        """stderr may be closed or full; the answer is worth more than a note about it."""
        if sys.stderr is not None:
            with suppress(OSError, ValueError):
                sys.stderr.write(text)
                sys.stderr.flush()


def write_stdout(text: str) -> None:
    """Writes `text` at once. ReaderGoneError where the reader went away, UnwritableError where it cannot be written."""
    if sys.stdout is None or sys.stdout.closed:
        raise UnwritableError(
            "stdout is closed, so there is nowhere to write the answer; open it or redirect it to a file"
        )
    try:
        sys.stdout.write(text)
        sys.stdout.flush()
    except BrokenPipeError as error:
        abandon_stdout()
        raise ReaderGoneError from error
    except OSError as error:
        abandon_stdout()
        reason = error.strerror or errno.errorcode.get(error.errno or 0, str(error))
        raise UnwritableError(f"cannot write the answer to stdout: {reason}; free space or write elsewhere") from error


def abandon_stdout() -> None:
    """What is left in Python's buffer goes nowhere, so that nothing fails again at exit."""
    with suppress(OSError, ValueError, AttributeError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)


def hold_closed_descriptors() -> None:
    """Where stdin, stdout or stderr came closed, the null device takes its number.

    Else the next file to be opened would get it: the weights, as stdin. `sys.stdin` and the others stay None.
    """
    for descriptor in (0, 1, 2):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # gets the lowest number that is free: this one


def use_utf8() -> None:
    """Files and pipes get UTF-8 whatever the locale says; a terminal of another encoding shows ? for what it lacks."""
    for stream in (sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is not None:
            reconfigure(errors="replace") if is_terminal(stream) else reconfigure(encoding="utf-8", errors="replace")
