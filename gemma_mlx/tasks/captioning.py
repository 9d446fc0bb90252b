"""One picture or video -> one text about it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from gemma_mlx.answer import Reply
from gemma_mlx.gemma import Gemma
from gemma_mlx.inputs.media import Media
from gemma_mlx.inputs.video import is_video
from gemma_mlx.tasks.message import Source, user_message

PROMPT = "Describe this image in one sentence."
VIDEO_PROMPT = "Describe this video in one sentence."


def caption(
    gemma: Gemma, source: Source, prompt: str | None = None, *, before: Sequence[Mapping[str, Any]] = (), **options: Any
) -> Reply:
    """The answer to `prompt` about a picture or video; `options` are those of `Gemma.stream`.

    `before` are messages that stand before all: with a `session`, they are read once for all pictures of a batch.
    InputError for what is neither picture nor video.
    """
    if source.kind == "video" if isinstance(source, Media) else is_video(source):
        asked = user_message(prompt or VIDEO_PROMPT, videos=[source])
    else:
        asked = user_message(prompt or PROMPT, [source])
    return gemma.reply([*before, asked], shared_messages=before, **options)
