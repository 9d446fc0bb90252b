"""One chat on the disk: what is said is there before the next prompt is taken.

    chats/2026-11-20-0930-what-is-this/
      chat.jsonl         what was said and set, a line each (`chat_record.py`)
      media/DIGEST.png   what was attached, as it was given (`chat_media.py`)
      cache              the warm caches as they were last saved (`chat_cache.py`)

All of it is for its owner alone.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import suppress
from datetime import datetime
from pathlib import Path

from gemma_mlx.decoding.session import Session
from gemma_mlx.errors import GemmaError, UsageError
from gemma_mlx.gemma import Gemma
from gemma_mlx.home import home
from gemma_mlx.kept_lines import KeptLines
from gemma_mlx.tasks import chat_record
from gemma_mlx.tasks.chat_cache import ChatCache
from gemma_mlx.tasks.chat_media import keep_original
from gemma_mlx.tasks.chat_names import automatic_name, checked_name
from gemma_mlx.tasks.chat_record import Line, Record
from gemma_mlx.tasks.turn import Attached, Settings, Turn

LINES_FILE, MEDIA_FOLDER = "chat.jsonl", "media"


def chats_folder() -> Path:
    """Where all chats are; it may not exist yet."""
    return home() / "chats"


class KeptChat:
    """A chat's place on the disk, held against other processes until `close`. It has none before its first message.

    What a method is told is on the disk when it returns. Where the disk does not let it, it returns a line that says
    so; what is missing is held, and comes before what the next method is told. A setting may come from one thread while
    another keeps an answer; nothing is told after `close`.
    """

    def __init__(self, folder: Path | None = None, name: str | None = None) -> None:
        """The chat in `folder`; without one a new chat, called `name` or by its first words.

        GemmaError where another process has it, or it cannot be read.
        """
        self.record = Record()
        """What there was when it was opened."""
        self.cache = ChatCache()
        self._folder = folder
        self._chosen_name = checked_name(name) if name is not None else None
        self._lines: KeptLines | None = None
        self._missing: list[Callable[[], Line]] = []
        self._writing = threading.Lock()
        self._failing = False
        self._notes: list[str] = []
        self._known: list[Attached] = []  # media whose source is a file of this chat
        if folder is not None:
            self._lines = open_lines(folder)
            self.record = chat_record.replay(self._lines.found, folder / MEDIA_FOLDER)
            self.record.passed_over += self._lines.passed_over
            turns = [*self.record.turns.values(), *([self.record.unanswered] if self.record.unanswered else [])]
            self._known = [item for turn in turns for item in turn.attached]
            self.cache.folder = folder
        self._last_number = self.record.last_number
        self._numbers = list(self.record.turns)

    @property
    def name(self) -> str | None:
        """None as long as it has neither a folder nor a name chosen for it."""
        return self._folder.name if self._folder else self._chosen_name

    def ask(self, turn: Turn) -> str | None:
        """Keeps a message that is about to be answered, with its media."""
        self._last_number += 1
        number = self._last_number
        return self._add(lambda: chat_record.asked_line(number, turn, self._files(turn)), turn.text)

    def answer(self, turn: Turn, again: bool = False) -> str | None:
        """Keeps the answer to the message last asked; or, `again`, another one to the last turn."""
        if not again:
            self._numbers.append(self._last_number)
        number = self._numbers[-1]
        return self._add(lambda: chat_record.answered_line(number, turn))

    def forget_last(self) -> str | None:
        """The last turn is taken back."""
        number = self._numbers.pop()
        return self._add(lambda: chat_record.undone_line(number))

    def set_settings(self, settings: Settings) -> str | None:
        """Keeps how the next message will be asked."""
        return self._add(lambda: chat_record.settings_line(settings)) if self._begun else None

    def rename(self, name: str) -> None:
        """From now on, or from its first message on, it is called `name`.

        UsageError for what cannot be a name or is one already, GemmaError where the disk does not let us.
        """
        name = checked_name(name)
        new = chats_folder() / name
        if name == self.name:
            return
        if new.exists():
            raise UsageError(f"there is a chat {name!r} already; choose another name")
        if self._folder is None:
            self._chosen_name = name
            return
        try:
            self._folder.rename(new)
        except OSError as error:
            raise GemmaError(f"cannot rename the chat ({error.strerror or error}); choose another name") from error
        for item in self._known:
            if isinstance(item.source, Path):
                item.source = new / MEDIA_FOLDER / item.source.name
        self._folder = self.cache.folder = new

    def save_cache(self, gemma: Gemma, session: Session) -> str | None:
        """Saves the warm caches, for `resume` to go on from; returns a line where it is not done. Model's thread."""
        return self.cache.save(gemma, session)

    def close(self) -> str | None:
        """Another process may have it from now on. Returns a line where something is lost."""
        if self._missing:
            self._write("")
        lost = len(self._missing)
        if self._lines is not None:
            self._lines.close()
            self._lines = None
        return f"the chat's last {lost} entries could not be saved and are lost" if lost else None

    @property
    def _begun(self) -> bool:
        return self._folder is not None or bool(self._missing)

    def _add(self, line: Callable[[], Line], first_text: str = "") -> str | None:
        with self._writing:
            self._missing.append(line)
            self._write(first_text)
            notes, self._notes = self._notes, []
        return "; ".join(notes) or None

    def _write(self, first_text: str) -> None:
        """Brings what is missing to the disk, the oldest first."""
        try:
            if self._lines is None:
                self._lines = self._begin(first_text)
            while self._missing:
                self._lines.add(self._missing[0]())
                del self._missing[0]
        except OSError as error:
            self._failing = True
            self._notes.append(f"the chat is not saved ({error.strerror or error}); the next message tries again")
        else:
            if self._failing:
                self._notes.append("the chat is saved again, whole")
            self._failing = False

    def _begin(self, text: str) -> KeptLines:
        """Makes the folder, under a name that no other chat has."""
        for folder in (home(), chats_folder()):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        name = self._chosen_name or automatic_name(text, datetime.now().astimezone())
        folder = _new_folder(chats_folder(), name)
        try:
            lines = KeptLines(folder / LINES_FILE)
        except BaseException:
            with suppress(OSError):
                folder.rmdir()
            raise
        if self._chosen_name not in (None, folder.name):
            self._notes.append(f"there is a chat {self._chosen_name!r} by now; this one is called {folder.name!r}")
        self._folder = self.cache.folder = folder
        return lines

    def _files(self, turn: Turn) -> list[str | None]:
        """Keeps the media of `turn`; the names of their files. OSError where the disk does not let us."""
        assert self._folder is not None
        files = [keep_original(item, self._folder / MEDIA_FOLDER) for item in turn.attached]
        for item, file in zip(turn.attached, files, strict=True):
            if file is None:
                self._notes.append(f"{item.name} is no longer where it was, so the chat is kept without it")
            elif item not in self._known:
                self._known.append(item)
        return files


def open_lines(folder: Path) -> KeptLines:
    """The lines of the chat in `folder`. GemmaError where another process has them, or they cannot be read."""
    try:
        return KeptLines(folder / LINES_FILE)
    except BlockingIOError:
        raise GemmaError(f"the chat {folder.name!r} is open elsewhere; leave it there, or begin another") from None
    except OSError as error:
        raise GemmaError(f"cannot open the chat {folder.name!r} ({error.strerror or error}); begin another") from error


def _new_folder(parent: Path, name: str) -> Path:
    for count in range(1, 10_000):
        folder = parent / (name if count == 1 else f"{name}-{count}")
        with suppress(FileExistsError):
            folder.mkdir(mode=0o700)
            return folder
    raise FileExistsError(f"there are too many chats {name}")
