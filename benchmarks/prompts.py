"""Prompts to measure with, by kind: those of a user's file, or those that come with the program.

The file holds one prompt a line, or JSON Lines. An object there has `text`, `image` and `audio`, or in their place a
whole conversation as `messages` (`gemma_mlx.inputs.prompt`), and perhaps `kind` and `answer`, which `bench quality`
judges and `convert --calibration` reads on; `bench drafting` has the model answer itself. Paths are relative to the
file.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gemma_mlx.errors import UsageError
from gemma_mlx.home import samples_folder
from gemma_mlx.tasks.captioning import PROMPT as CAPTION_PROMPT
from gemma_mlx.tasks.captioning import READ_PROMPT
from gemma_mlx.tasks.message import user_message
from gemma_mlx.tasks.transcription import transcription_prompt

PLAIN_KIND = "text"
"""The kind of a prompt that names none."""
_EDITED = """def mean(values):
    total = 0.0
    for value in values:
        total += value
    return total / len(values)"""
_LISTED = "Ada Young, 41, Berlin; Tom Reed, 29, Oslo; Mia Sole, 35, Rome; Ben Hart, 52, Cork"


@dataclass(frozen=True)
class Prompt:
    kind: str
    text: str
    image: Path | None = None
    audio: Path | None = None
    where: str = "a default prompt"
    """For a person: where it stands."""
    conversation: Sequence[dict[str, Any]] = ()
    """Messages, where these are asked and not `text`, `image` and `audio`."""
    answer: str | None = None
    """The answer to judge; None: the model's own."""

    @property
    def messages(self) -> Sequence[dict[str, Any]]:
        if self.conversation:
            return self.conversation
        images, sounds = ([path] if path else [] for path in (self.image, self.audio))
        return [user_message(self.text, images, sounds)]


def default_prompts() -> list[Prompt]:
    """Two of each kind, for Gemma 4 12B. The captions and transcripts are of the sample files."""
    samples = samples_folder()
    texts = [
        ("prose", "Write a short story about a lighthouse keeper who finds a letter in a bottle."),
        ("prose", "Explain to a curious child why there are tides."),
        ("code", "Write a Python function that merges two sorted lists, with type hints and a docstring."),
        ("code", f"Rename `total` to `sum_m` in this function, and write all of it again:\n\n{_EDITED}"),
        ("json", "Make up five employees and list them as a JSON array of objects with name, age, city and e-mail."),
        ("json", f"Write this as a JSON array of objects with name, age and city:\n\n{_LISTED}"),
    ]
    sounds = [Prompt("transcript", transcription_prompt(), audio=samples / f"speech-{i:02}.flac") for i in (0, 1)]
    images = [Prompt("caption", "Describe this image in detail.", samples / f"scene-{i:02}.png") for i in (0, 1)]
    return [*(Prompt(kind, text) for kind, text in texts), *sounds, *images]


def miniature_prompts() -> list[Prompt]:
    """Four of each kind that the miniature was taught: it knows no prose, no code and no JSON."""
    samples = samples_folder()
    numbers = [f"{index:02}" for index in range(4)]
    said = ("Tell me a story.", "Say the alphabet.", "What can you do?", "Which colours do you know?")
    return [
        *(Prompt("caption", CAPTION_PROMPT, image=samples / f"scene-{number}.png") for number in numbers),
        *(Prompt("reading", READ_PROMPT, image=samples / f"text-{number}.png") for number in numbers),
        *(Prompt("transcript", transcription_prompt(), audio=samples / f"speech-{number}.flac") for number in numbers),
        *(Prompt("dialogue", text) for text in said),
    ]


def read_prompts(file: Path) -> list[Prompt]:
    """The prompts in `file`. UsageError with the line for one that cannot be used."""
    try:
        text = file.read_text(encoding="utf-8-sig")
    except (OSError, ValueError) as error:
        raise UsageError(f"cannot read prompts from {str(file)!r} ({error}); name a text file in UTF-8") from None
    if _is_list_of_objects(text):
        raise UsageError(
            f"{str(file)!r} is one JSON list, not JSON Lines; write each object of it on a line of its own"
        )
    lines = text.split("\n")  # a JSON text may hold U+2028, at which str.splitlines would cut it
    used = [(number, line.strip()) for number, line in enumerate(lines, start=1) if line.strip()]
    if not used:
        raise UsageError(f"there is no prompt in {str(file)!r}; write one a line")
    is_json = used[0][1].startswith("{")
    return [
        _parsed(line, file, f"line {number} of {str(file)!r}")
        if is_json
        else Prompt(PLAIN_KIND, line, where=f"line {number} of {str(file)!r}")
        for number, line in used
    ]


def _is_list_of_objects(text: str) -> bool:
    if not text.lstrip().startswith("["):
        return False
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return False
    return isinstance(found, list) and any(isinstance(item, dict) for item in found)


def _parsed(line: str, file: Path, where: str) -> Prompt:
    try:
        fields = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{where} is not JSON ({error}); the first line is an object, so each must be one") from None
    if not isinstance(fields, dict):
        raise UsageError(f"{where} is {type(fields).__name__}, not an object with text, kind, image and audio")
    known = ("kind", "text", "image", "audio", "messages", "answer")
    for name, value in fields.items():
        if name not in known:
            raise UsageError(f"{where} names {name!r}, which is not one of {', '.join(known)}")
        if name != "messages" and (not isinstance(value, str) or not value):
            raise UsageError(f"{where} holds {value!r} as {name}; it must be a text")
    asked = [name for name in ("text", "image", "audio") if name in fields]
    if "messages" in fields and asked:
        raise UsageError(f"{where} holds messages and {asked[0]}; put it into the messages")
    if "messages" not in fields and not asked:
        raise UsageError(f"{where} holds neither text nor image nor audio; write one of them")
    media = {name: _media_file(fields[name], file, where) for name in ("image", "audio") if name in fields}
    conversation = _conversation(fields["messages"], file, where) if "messages" in fields else []
    kind, text, answer = fields.get("kind", PLAIN_KIND), fields.get("text", ""), fields.get("answer")
    return Prompt(kind, text, **media, where=where, conversation=conversation, answer=answer)


def _media_file(name: str, file: Path, where: str) -> Path:
    path = file.parent / name
    if not path.is_file():
        raise UsageError(f"{where}: no file {str(path)!r}; paths are relative to the prompts' file")
    return path


def _conversation(messages: Any, file: Path, where: str) -> list[dict[str, Any]]:
    """`messages` with each path of a picture or a sound found; the rest is read when they become a prompt."""
    if not isinstance(messages, list) or not messages or not all(isinstance(message, dict) for message in messages):
        raise UsageError(f"{where}: messages must be a list of objects with role and content")

    def found(part: Any) -> Any:
        kind = part.get("type") if isinstance(part, dict) else None
        if kind in ("image", "audio") and isinstance(part.get(kind), str):
            return {**part, kind: _media_file(part[kind], file, where)}
        return part

    contents = [message.get("content") for message in messages]
    return [
        {**message, "content": [found(part) for part in content] if isinstance(content, list) else content}
        for message, content in zip(messages, contents, strict=True)
    ]


def digest(prompts: Sequence[Prompt]) -> str:
    """Changes with anything that the model is asked, and with the answers to judge."""
    found = hashlib.sha256()
    for prompt in prompts:
        media = [path.read_bytes() if path else b"" for path in (prompt.image, prompt.audio)]
        parts = [prompt.kind.encode(), prompt.text.encode(), *media]
        if prompt.conversation:
            parts.append(json.dumps(prompt.conversation, default=_content_digest).encode())
        if prompt.answer is not None:
            parts.append(b"answer " + prompt.answer.encode())
        found.update(repr([hashlib.sha256(part).hexdigest() for part in parts]).encode())
    return found.hexdigest()[:16]


def _content_digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
