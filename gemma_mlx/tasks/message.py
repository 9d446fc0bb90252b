"""A user's message in the order that the model card asks for: pictures and video, then text, then sounds."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from gemma_mlx.inputs.media import Media

Source = Path | str | bytes | Media
"""A picture, sound or video: a path or URL as `gemma_mlx.inputs.media` takes it, a file's bytes, or one prepared."""


def user_message(
    text: str, images: Sequence[Source] = (), sounds: Sequence[Source] = (), videos: Sequence[Source] = ()
) -> dict[str, Any]:
    """One message of the user. Put after the text, a sound is listened to; put before it, it is answered."""
    parts: list[dict[str, Any]] = [{"type": "image", "image": image} for image in images]
    parts += [{"type": "video", "video": video} for video in videos]
    parts += [{"type": "text", "text": text}] if text else []
    parts += [{"type": "audio", "audio": sound} for sound in sounds]
    return {"role": "user", "content": parts}
