"""One picture or video -> one text about it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from gemma_mlx.answer import Reply
from gemma_mlx.gemma import Gemma
from gemma_mlx.inputs.image import Budget
from gemma_mlx.inputs.media import Media
from gemma_mlx.inputs.video import is_video
from gemma_mlx.tasks.message import Source, user_message

PROMPT = "Describe this image in one sentence."
VIDEO_PROMPT = "Describe this video in one sentence."
READ_PROMPT = "Read the text in this image."


@dataclass(frozen=True)
class Film:
    """A video with its sound track."""

    pictures: Media
    sound: Media

    @property
    def label(self) -> str:
        """For a person."""
        return f"{self.pictures.label}; its sound: {self.sound.label}"


def prepare_file(
    gemma: Gemma, source: str | bytes, detail: Budget | None = None, *, frames: int | None = None, sound: bool = False
) -> Media | Film:
    """What `caption` takes of a file, by what it holds; `frames` of a video, and with `sound` its sound track too.

    InputError for what is neither picture nor video, and for a video whose sound is missed.
    """
    if not is_video(source):
        return gemma.prompts.prepare({"type": "image", "image": source}, detail)
    pictures = gemma.prompts.prepare({"type": "video", "video": source, "frames": frames}, detail)
    return Film(pictures, gemma.prompts.prepare({"type": "audio", "audio": source})) if sound else pictures


def caption(
    gemma: Gemma,
    source: Source | Film,
    prompt: str | None = None,
    *,
    before: Sequence[Mapping[str, Any]] = (),
    **options: Any,
) -> Reply:
    """The answer to `prompt` about a picture or video; `options` are those of `Gemma.stream`.

    `before` are messages that stand before all: with a `session`, they are read once for all pictures of a batch.
    InputError for what is neither picture nor video.
    """
    if isinstance(source, Film):
        asked = user_message(prompt or VIDEO_PROMPT, videos=[source.pictures], sounds=[source.sound])
    elif source.kind == "video" if isinstance(source, Media) else is_video(source):
        asked = user_message(prompt or VIDEO_PROMPT, videos=[source])
    else:
        asked = user_message(prompt or PROMPT, [source])
    return gemma.reply([*before, asked], shared_messages=before, **options)
