"""What is piped in: text for the prompt, or the bytes of one picture or sound. stdin has one reader only."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

from gemma_mlx.errors import InputError, UsageError
from gemma_mlx.terminal.output import is_terminal

STDIN = "-"


def check_one_reader(*readers: tuple[str, Sequence[str]]) -> None:
    """UsageError where `-` is named twice. Each reader is a flag and its values."""
    found = [flag for flag, values in readers for value in values if value == STDIN]
    if len(found) > 1:
        raise UsageError(f"{' and '.join(found)} both read stdin; name a file for one of them")


def is_piped() -> bool:
    return sys.stdin is not None and not sys.stdin.closed and not is_terminal(sys.stdin)


def read_bytes() -> bytes:
    """All of stdin. InputError if it is closed or empty."""
    data = sys.stdin.buffer.read() if sys.stdin is not None and not sys.stdin.closed else b""
    if not data:
        raise InputError("stdin holds nothing to read for '-'; pipe a file into it")
    return data


def read_text() -> str:
    """All of stdin as text; "" if it is closed. InputError if it is not UTF-8."""
    if sys.stdin is None or sys.stdin.closed:
        return ""
    try:
        return sys.stdin.buffer.read().decode("utf-8")
    except UnicodeDecodeError as error:
        raise InputError(
            f"stdin is not UTF-8 text (byte {error.start}); read a picture with --image -, a sound with --audio -"
        ) from error


def media_source(name: str) -> str | bytes:
    """The file called `name`, or what is piped in where that is `-` or a named pipe, which can be read only once."""
    if name == STDIN:
        return read_bytes()
    with suppress(OSError, ValueError):  # whoever opens it next says what is wrong with it
        if Path(name).is_fifo():
            return Path(name).read_bytes()
    return name


def binary() -> BinaryIO:
    """stdin, to be read as it comes. InputError if it is closed."""
    if sys.stdin is None or sys.stdin.closed:
        raise InputError("stdin holds nothing to read for '-'; pipe a file into it")
    return sys.stdin.buffer
