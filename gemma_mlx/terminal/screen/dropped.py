r"""Files dragged into the input line: terminals paste their names, each in its own way of quoting.

    '/tmp/a b.png'   "/tmp/a b.png"   '/tmp/it'\''s.png'     quoted
    /tmp/a\ b.png                                            escaped
    file:///tmp/a%20b.png                                    a URL
    /tmp/a b.png                                             as it is, up to the end of its line

Several come with spaces or line ends between. Nothing is opened here: a name that stands in pasted text is a file that
a person wants to attach, or one that a stranger wrote into the text.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote

from gemma_mlx.terminal.input_files import media_kind

MAX_NAME_CHARS = 4096
MAX_NAMES = 1000
"""So many words that begin like a path are looked at; whatever comes after them in a long paste is text."""

_START = re.compile(r"(?<!\S)['\"]?(?:/|~|\.{1,2}/|file:)")
_QUOTED = r"'(?P<single>[^']*)'|\"(?P<double>(?:\\.|[^\"\\])*)\""
_PIECE = re.compile(rf"{_QUOTED}|\\(?P<escaped>.)|(?P<plain>[^\s\\'\"]+)", re.S)
_ESCAPE_IN_QUOTES = re.compile(r"\\([\\\"$`])")
_LINE_END = re.compile(r"[\r\n]")
_FILE_URL = re.compile(r"file:(?://(?:localhost)?)?(/.*)", re.I | re.S)  # of this machine
_AFTER_A_NAME = ".,;:!?)]}>"


@dataclass(frozen=True)
class Dropped:
    """What is left of a pasted text without the names in it, and the files that they name, in their order."""

    text: str
    paths: tuple[Path, ...]


def dropped_paths(pasted: str) -> Dropped | None:
    """The pictures, sounds and videos that exist and that `pasted` names; None where it names none.

    Names count that are absolute or begin with `~`, `./` or `../`, and file URLs of this machine. They may hold control
    characters.
    """
    kept: list[str] = []
    paths: list[Path] = []
    after_last = search_from = 0
    for _ in range(MAX_NAMES):
        start = _START.search(pasted, search_from)
        if start is None:
            break
        search_from = start.end()
        found = _file_at(pasted, start.start())
        if found is not None:
            path, end = found
            paths.append(path)
            kept.append(pasted[after_last : start.start()].rstrip(" "))
            after_last = search_from = end
    if not paths:
        return None
    text = "".join([*kept, pasted[after_last:]]).replace("\r\n", "\n").replace("\r", "\n")
    return Dropped(text.strip(), tuple(paths))


def _file_at(text: str, at: int) -> tuple[Path, int] | None:
    """The file that is named from `at` on, and where its name ends."""
    for name, end in _readings(text, at):
        path = _existing(name)
        if path is not None:
            return path, end
    return None


def _readings(text: str, at: int) -> Iterator[tuple[str, int]]:
    """What the name at `at` may be, and where it ends: the rest of its line, a word of a shell, one in a sentence."""
    window = text[at : at + 2 * MAX_NAME_CHARS]
    line = _LINE_END.split(window, 1)[0].rstrip()
    yield line, at + len(line)
    word, end = "", 0
    while piece := _PIECE.match(window, end):
        word += _meant(piece)
        end = piece.end()
    yield word, at + end
    after = end - len(window[:end].rstrip(_AFTER_A_NAME))
    yield word[: len(word) - after], at + end - after


def _meant(piece: re.Match[str]) -> str:
    if piece["double"] is not None:
        return _ESCAPE_IN_QUOTES.sub(r"\1", piece["double"])
    return piece[piece.lastgroup or 0]


def _existing(name: str) -> Path | None:
    """The file of that name, in whichever of the two ways its accents are written on this disk."""
    url = _FILE_URL.fullmatch(name)
    if url:
        name = unquote(url[1], errors="surrogateescape")
    if media_kind(Path(name)) is None:
        return None
    for written in dict.fromkeys((name, unicodedata.normalize("NFC", name), unicodedata.normalize("NFD", name))):
        try:
            path = Path(written).expanduser()
            if path.is_file():
                return path
        except (OSError, ValueError, RuntimeError):  # too long; a NUL byte or a lone surrogate; ~ of nobody
            return None
    return None
