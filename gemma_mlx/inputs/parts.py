"""What a message may hold: the parts of chat APIs, and their types."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO, Literal, TypedDict

from numpy.typing import NDArray
from PIL import Image

from gemma_mlx.inputs.media import MEDIA_TYPES, Media

ROLES = ("system", "developer", "user", "assistant", "tool")
ROLES_WITH_MEDIA = ("user", "tool")


class TextPart(TypedDict):
    type: Literal["text"]
    text: str


class _ImageFields(TypedDict):
    type: Literal["image"]
    image: Path | str | bytes | BinaryIO | Image.Image | Media


class ImagePart(_ImageFields, total=False):
    name: str  # for a person, of what is no file


class ImageUrl(TypedDict):
    url: str  # data:, file: or a path; http and https are refused


class ImageUrlPart(TypedDict):
    type: Literal["image_url"]
    image_url: ImageUrl


class _AudioFields(TypedDict):
    type: Literal["audio"]
    audio: Path | str | bytes | BinaryIO | tuple[NDArray[Any], int] | Media


class AudioPart(_AudioFields, total=False):
    name: str  # for a person, of what is no file


class InputAudio(TypedDict, total=False):
    data: str  # base64
    format: str  # not needed: the data says itself what it is


class InputAudioPart(TypedDict):
    type: Literal["input_audio"]
    input_audio: InputAudio


class _VideoFields(TypedDict):
    type: Literal["video"]
    video: Path | str | bytes | BinaryIO | Media


class VideoPart(_VideoFields, total=False):
    frames: int  # 1 to 60, evenly spread; left out: one a second, at most 32
    sound: bool  # also hear the sound track, at the end of the message


Part = TextPart | ImagePart | ImageUrlPart | AudioPart | InputAudioPart | VideoPart


class _MessageFields(TypedDict):
    role: Literal["system", "developer", "user", "assistant", "tool"]


class Message(_MessageFields, total=False):
    """One message. Keys beyond these reach the chat template as they are."""

    content: str | Sequence[Part] | None
    reasoning: str
    tool_calls: Sequence[Mapping[str, Any]]
    tool_call_id: str
    name: str


def with_sound_tracks(parts: Sequence[Any]) -> list[Any]:
    """`parts`, and at their end, where the model card wants sounds, the sound of each video with `sound`."""
    spread, tracks = [], []
    for part in parts:
        if isinstance(part, Mapping) and part.get("type") == "video" and part.get("sound"):
            part = {key: value for key, value in part.items() if key != "sound"}
            held = part.get("video")
            if held is not None and hasattr(held, "read"):
                part["video"] = held = held.read()  # It can be read once only.
            if held is not None:
                tracks.append({"type": "audio", "audio": held})
        spread.append(part)
    return spread + tracks


def why_refused(part_type: object, role: str) -> str:
    """What is wrong with a part of this type in a message of this role."""
    if part_type in MEDIA_TYPES:
        return f"a message of role {role!r} holds a part of type {part_type!r}; attach media to a user message"
    if part_type == "text":
        return "a text part holds no string under 'text'; put the text there"
    return f"a message part has the type {part_type!r}; use one of text, {', '.join(MEDIA_TYPES)}"
