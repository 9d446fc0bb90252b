"""A chat as a document to read (Markdown) or to send (JSON, in the messages that chat APIs take)."""

from __future__ import annotations

import base64
import html
import json
import mimetypes
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any
from urllib.parse import quote

from gemma_mlx.errors import GemmaError, UsageError
from gemma_mlx.replace_file import replacing
from gemma_mlx.tasks.turn import Attached, Turn

MEDIA_ENDING = ".media"
"""What a document's media folder has behind its name."""


def export_chat(name: str, turns: Sequence[Turn], path: Path, *, force: bool = False) -> list[str]:
    """Writes the chat called `name` to `path`, a .md or a .json; returns what there is to say of media that are gone.

    The media of a .md, and the videos of a .json, are copied into a folder beside it. UsageError, and nothing is
    written, for another ending, for no turns, and, without `force`, where something is there already; GemmaError where
    it cannot be written.
    """
    write = {".md": _markdown, ".json": _json}.get(path.suffix.lower())
    if write is None:
        raise UsageError(f"{path.name} ends in neither .md nor .json; name the file by what it shall be")
    if not turns:
        raise UsageError("nothing was said in this chat yet; there is nothing to export")
    files = _Files(path.with_name(path.name + MEDIA_ENDING))
    try:
        _check_target(path, files.folder, force)
        text = "".join(write(name, turns, files))
        with replacing(path) as stream:
            stream.write(text.encode("utf-8", "replace"))
    except OSError as error:
        files.remove()
        raise GemmaError(f"cannot write {path} ({error.strerror or error}); free space or name another file") from error
    return files.notes


def _check_target(path: Path, media_folder: Path, force: bool) -> None:
    if not path.parent.is_dir():
        raise UsageError(f"there is no folder {path.parent} for {path.name}; make it, or name another file")
    for place in () if force else (path, media_folder):
        if place.exists() or place.is_symlink():
            raise UsageError(f"{place} is there already; name another file (or, with gemma-mlx chats export, --force)")


class _Files:
    """The copies of media beside the document, each once."""

    def __init__(self, folder: Path) -> None:
        self.notes: list[str] = []
        self.folder = folder
        self._copied: dict[str, str] = {}

    def copy(self, item: Attached) -> str | None:
        """The link to a copy of `item`, relative to the document; None where it is gone."""
        if item.digest not in self._copied:
            data = self.read(item)
            if data is None:
                return None
            self.folder.mkdir(exist_ok=True)
            name = f"{len(self._copied) + 1}{item.suffix}"
            with replacing(self.folder / name) as stream:
                stream.write(data)
            self._copied[item.digest] = f"{quote(self.folder.name)}/{name}"
        return self._copied[item.digest]

    def remove(self) -> None:
        """Takes the copies away again, and the folder where nothing else is in it."""
        with suppress(OSError):
            for link in self._copied.values():
                (self.folder / Path(link).name).unlink()
            self.folder.rmdir()

    def read(self, item: Attached) -> bytes | None:
        """The bytes of `item`; None where it is gone."""
        with suppress(OSError):
            return b"".join(item.original())
        self.notes.append(f"{item.name} is gone, so only its name is exported")
        return None


def _markdown(name: str, turns: Sequence[Turn], files: _Files) -> Iterator[str]:
    yield f"# {_escaped(name)}\n"
    system = None
    for turn in turns:
        if turn.settings.system != system:
            system = turn.settings.system
            yield f"\n## System\n\n{system or '(none from here on)'}\n"
        yield f"\n## User\n\n{turn.asked_at}\n"
        for item in turn.attached:
            link, label = files.copy(item), _escaped(item.label)
            shown = f"![{label}]({link})" if item.kind == "image" else f"[{label}]({link})"
            yield f"\n{shown if link else label}\n"
        yield f"\n{turn.text}\n" if turn.text else ""
        yield f"\n## {_escaped(str(turn.figures.get('model', 'Model')))}\n"
        if turn.thought:  # what looks like a tag in it must not end the fold
            thought = html.escape(turn.thought, quote=False)
            yield f"\n<details><summary>Thoughts</summary>\n\n{thought}\n\n</details>\n"
        yield f"\n{turn.answer.strip()}\n"


def _escaped(text: str) -> str:
    """`text` on one line, with nothing in it that Markdown reads as its own."""
    plain = "".join(char if char.isprintable() else " " for char in text)
    return "".join(f"\\{char}" if char in "\\`*_[]<>()#!&|~" else char for char in plain)


def _json(name: str, turns: Sequence[Turn], files: _Files) -> Iterator[str]:
    messages: list[dict[str, Any]] = []
    system = turns[-1].settings.system
    if system:
        messages.append({"role": "system", "content": system})
    for turn in turns:
        parts = [_part(item, files) for item in turn.attached if item.kind != "audio"]
        parts += [{"type": "text", "text": turn.text}] if turn.text else []
        parts += [_part(item, files) for item in turn.attached if item.kind == "audio"]
        answer = {"role": "assistant", "content": turn.answer, **({"reasoning": turn.thought} if turn.thought else {})}
        messages += [{"role": "user", "content": parts if turn.attached else turn.text}, answer]
    told = [{"asked_at": turn.asked_at, **asdict(turn.settings), **turn.figures} for turn in turns]
    yield json.dumps({"name": name, "messages": messages, "turns": told}, ensure_ascii=False, indent=1) + "\n"


def _part(item: Attached, files: _Files) -> dict[str, Any]:
    """A message's part with the medium in it; of a video, with its file; of one that is gone, its name."""
    if item.kind == "video":
        link = files.copy(item)
        return {"type": "video", "video": link} if link else {"type": "text", "text": f"[{item.label}]"}
    data = files.read(item)
    if data is None:
        return {"type": "text", "text": f"[{item.label}]"}
    written = base64.b64encode(data).decode()
    if item.kind == "audio":
        return {"type": "input_audio", "input_audio": {"data": written, "format": item.suffix[1:] or "wav"}}
    mime = mimetypes.guess_type(f"picture{item.suffix}")[0] or "image/png"
    return {"type": "image_url", "image_url": {"url": f"data:{mime};base64,{written}"}}
