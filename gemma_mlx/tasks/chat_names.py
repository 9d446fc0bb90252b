"""What a chat is called: also the name of its folder, so only what every file system takes and every terminal shows."""

from __future__ import annotations

import unicodedata
from datetime import datetime

from gemma_mlx.errors import UsageError

_MOST_BYTES = 120
_MOST_WORDS_BYTES = 48
_SEPARATORS = "/\\:"
_SHOWN_CHARACTERS = 40


def automatic_name(text: str, now: datetime) -> str:
    """The minute and the first words of a message: "2026-11-20-0930-what-is-this"."""
    letters = "".join(char.lower() if char.isalnum() else " " for char in unicodedata.normalize("NFC", text[:200]))
    words = ""
    for word in letters.split():
        if len(f"{words}-{word}".encode()) > _MOST_WORDS_BYTES:
            break
        words += f"-{word}"
    return f"{now:%Y-%m-%d-%H%M}{words}"


def checked_name(name: str) -> str:
    """`name` as a folder can have it. UsageError for one that would be another place, or cannot be shown."""
    name = unicodedata.normalize("NFC", name.strip())
    shown = repr(name[:_SHOWN_CHARACTERS] + ("..." if len(name) > _SHOWN_CHARACTERS else ""))
    if not name:
        raise UsageError("a chat's name must have letters; write one, as: trip to Rome")
    if any(mark in name for mark in _SEPARATORS):
        raise UsageError(f"{shown} is no name for a chat: it must not hold {' '.join(_SEPARATORS)}; leave them out")
    if not name.isprintable():
        raise UsageError(f"{shown} is no name for a chat: it holds characters that do not show; leave them out")
    if name[0] in ".-":
        raise UsageError(f"{shown} is no name for a chat: it begins with {name[0]!r}; begin with a letter")
    if len(name.encode()) > _MOST_BYTES:
        raise UsageError(f"{shown} is no name for a chat: it is longer than {_MOST_BYTES} bytes; shorten it")
    return name
