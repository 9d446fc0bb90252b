"""The chats on the disk: found, listed, opened, deleted."""

from __future__ import annotations

import shutil
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from gemma_mlx.errors import GemmaError, UsageError
from gemma_mlx.kept_lines import parsed_lines
from gemma_mlx.tasks import chat_record
from gemma_mlx.tasks.chat_names import checked_name
from gemma_mlx.tasks.chat_record import Record
from gemma_mlx.tasks.kept_chat import LINES_FILE, MEDIA_FOLDER, KeptChat, chats_folder, open_lines


@dataclass(frozen=True)
class ChatSummary:
    """What a list tells of a chat."""

    name: str
    changed_at: str
    """Date and time of day with its zone, as ISO 8601 writes them."""
    turns: int
    size_bytes: int
    """Of all its files, the warm cache too."""
    model: str
    """That answered last; empty where none has."""


def new_chat(name: str | None = None) -> KeptChat:
    """A chat that nothing was said in. UsageError where `name` cannot be one, or a chat has it."""
    if name is not None and (chats_folder() / checked_name(name)).exists():
        raise UsageError(f"there is a chat {checked_name(name)!r} already; choose another name")
    return KeptChat(name=name)


def open_chat(name: str) -> KeptChat:
    """The chat called `name`. UsageError where there is none, GemmaError where it is open elsewhere or unreadable."""
    return KeptChat(_folder(name))


def latest_chat() -> KeptChat:
    """The chat that something was said in last. UsageError where there is none, GemmaError as `open_chat`."""
    folders = _folders()
    if not folders:
        raise UsageError("there is no chat to resume; begin one with gemma-mlx chat")
    return KeptChat(max(folders, key=_changed_s))


def has_chat(name: str) -> bool:
    """Whether there is a chat called `name`. UsageError for what cannot be a name."""
    return (chats_folder() / checked_name(name)) in _folders()


def read_chat(name: str) -> Record:
    """What is in the chat called `name`, also while it is open elsewhere. Errors as of `open_chat`."""
    return _read(_folder(name))


def list_chats() -> list[ChatSummary]:
    """All that can be read, the latest last."""
    summaries = []
    for folder in sorted(_folders(), key=_changed_s):
        with suppress(GemmaError, OSError):
            record = _read(folder)
            models = [turn.figures.get("model", "") for turn in record.turns.values()]
            changed = datetime.fromtimestamp(_changed_s(folder)).astimezone().isoformat("T", "seconds")
            size = sum(path.lstat().st_size for path in folder.rglob("*") if path.is_file())
            summaries.append(ChatSummary(folder.name, changed, len(record.turns), size, str((models or [""])[-1])))
    return summaries


def delete_chat(name: str) -> None:
    """Takes the chat called `name` away, with its media. Errors as of `open_chat`."""
    folder = _folder(name)
    lines = open_lines(folder)  # nobody else has it
    try:
        gone = folder.with_name(f".{folder.name}.deleted")
        shutil.rmtree(gone, ignore_errors=True)  # what a killed process left
        folder.rename(gone)
        shutil.rmtree(gone)
    except OSError as error:
        raise GemmaError(f"cannot delete {folder} ({error.strerror or error}); remove it yourself") from error
    finally:
        lines.close()


def _folder(name: str) -> Path:
    folder = chats_folder() / checked_name(name)
    if folder not in _folders():
        raise UsageError(f"there is no chat {checked_name(name)!r}; gemma-mlx chats lists them")
    return folder


def _folders() -> list[Path]:
    """Those of chats; links are not followed."""
    with suppress(OSError):
        return [
            folder
            for folder in chats_folder().iterdir()
            if not folder.name.startswith(".") and not folder.is_symlink() and (folder / LINES_FILE).is_file()
        ]
    return []


def _changed_s(folder: Path) -> float:
    try:
        return (folder / LINES_FILE).stat().st_mtime
    except OSError:  # deleted meanwhile
        return 0.0


def _read(folder: Path) -> Record:
    try:
        lines, passed_over = parsed_lines((folder / LINES_FILE).read_bytes())
    except OSError as error:
        raise GemmaError(f"cannot read the chat {folder.name!r} ({error.strerror or error})") from error
    record = chat_record.replay(lines, folder / MEDIA_FOLDER)
    record.passed_over += passed_over
    return record
