"""One training example: a conversation up to the user's last turn, and the answer."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from PIL import Image

PATCH_PX = 48
FRAME_SAMPLES = 640
SAMPLE_RATE_HZ = 16_000
CAPTION_PROMPT = "Describe this image in one sentence."
READ_PROMPT = "Read the text in this image."
TRANSCRIBE_PROMPT = (
    "Transcribe the following speech segment in its original language.\n\n"
    "Follow these specific instructions for formatting the answer:\n"
    "* Only output the transcription, with no newlines.\n"
    "* When transcribing numbers, write the digits, i.e. write 1.7 and not one point seven, "
    "and write 3 instead of three."
)


@dataclass(frozen=True)
class Sample:
    """`messages` is what the chat template takes; `thought` is None where thinking is off.

    `images` and `sounds` (mono float32 at 16 kHz) are in the order of their placeholders in `messages`.
    """

    messages: list[dict[str, Any]]
    answer: str
    images: list[Image.Image] = field(default_factory=list)
    sounds: list[np.ndarray] = field(default_factory=list)
    thought: str | None = None


def image_turn(prompt: str) -> dict[str, Any]:
    """A user turn with a picture before its text."""
    return {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": prompt}]}


def sound_turn(prompt: str) -> dict[str, Any]:
    """A user turn with a sound after its text."""
    return {"role": "user", "content": [{"type": "text", "text": prompt}, {"type": "audio"}]}


def text_turn(role: str, text: str) -> dict[str, Any]:
    """A turn of plain text."""
    return {"role": role, "content": text}
