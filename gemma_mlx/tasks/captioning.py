"""One picture -> one text about it."""

from __future__ import annotations

from typing import Any

from gemma_mlx.answer import Reply
from gemma_mlx.gemma import Gemma
from gemma_mlx.tasks.message import Source, user_message

PROMPT = "Describe this image in one sentence."


def caption(gemma: Gemma, image: Source, prompt: str = PROMPT, **options: Any) -> Reply:
    """The answer to `prompt` about `image`; `options` are those of `Gemma.stream`. InputError for no picture."""
    return gemma.reply([user_message(prompt, [image])], **options)
