"""How a command ends: 0 answered, 1 could not, 2 wrong usage, 130 interrupted."""

from __future__ import annotations

import json
import os
import signal
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Any, NoReturn, Protocol, TextIO

from gemma_mlx.errors import GemmaError, GemmaWarning
from gemma_mlx.terminal.output import Output, ReaderGoneError

DEBUG_VARIABLE = "GEMMA_MLX_DEBUG"
INTERRUPTED = 130


@contextmanager
def exit_codes(as_json: bool = False) -> Iterator[None]:
    """Whatever goes wrong inside becomes one line on stderr and SystemExit with its code; no traceback.

    With `as_json` the line is an object. With `GEMMA_MLX_DEBUG` set, what went wrong propagates as it is.
    """
    try:
        yield
    except ReaderGoneError:
        raise SystemExit(0) from None
    except KeyboardInterrupt:
        raise SystemExit(INTERRUPTED) from None
    except Exception as error:
        if os.environ.get(DEBUG_VARIABLE):
            raise
        report(error, as_json)
        raise SystemExit(exit_code_of(error)) from None


def report(error: Exception, as_json: bool = False, **facts: str) -> None:
    """One line of stderr about `error`; `facts` stand beside it in JSON."""
    if as_json:
        if sys.stderr is not None:
            with suppress(OSError, ValueError):
                sys.stderr.write(one_line({"error": one_line_of(error), **facts}) + "\n")
    else:
        Output().error(one_line_of(error))


def one_line(value: dict[str, Any]) -> str:
    """JSON in ASCII: nothing in it ends the line or acts on a terminal."""
    return json.dumps(value).replace("\x7f", "\\u007f")


def end_now(exit_code: int) -> NoReturn:
    """Ends the process, and with it the threads that it would wait for."""
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError, AttributeError):
            stream.flush()
    os._exit(exit_code)


def exit_code_of(error: BaseException) -> int:
    """What a command ends with that `error` ended."""
    return error.exit_code if isinstance(error, GemmaError) else 1


def one_line_of(error: BaseException) -> str:
    """What went wrong and what to do, for a line of its own."""
    if isinstance(error, GemmaError):
        return str(error)
    reason = " ".join(str(error).split())
    return f"{type(error).__name__}: {reason}; this is not expected: {DEBUG_VARIABLE}=1 shows where it happened"


class _Sayer(Protocol):
    def say(self, line: str) -> None: ...


def show_warnings_in_one_line(output: _Sayer) -> None:
    """A GemmaWarning is said, quiet or not; warnings of libraries are for developers and stay silent."""

    def show(
        message: Warning | str,
        category: type[Warning],
        filename: str,
        lineno: int,
        file: TextIO | None = None,
        line: str | None = None,
    ) -> None:
        if issubclass(category, GemmaWarning):
            output.say(f"warning: {message}")

    warnings.simplefilter("always", GemmaWarning)
    warnings.showwarning = show


class Interrupt:
    """While entered, the first Ctrl-C is only noted in `asked`; one more raises KeyboardInterrupt at once.

    So an answer stops between two tokens, not in the middle of a layer.
    """

    def __init__(self) -> None:
        self.asked = False

    def __enter__(self) -> Interrupt:
        self._before = signal.signal(signal.SIGINT, self._note)
        return self

    def __exit__(self, *exception: object) -> None:
        signal.signal(signal.SIGINT, self._before)

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.asked:
            raise KeyboardInterrupt
        self.asked = True
