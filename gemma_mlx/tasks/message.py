"""A user's message in the order that the model card asks for: pictures and video, then text, then sounds."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from gemma_mlx.inputs.media import Media

Source = Path | str | bytes | Media
"""A picture, sound or video: a path or URL as `gemma_mlx.inputs.media` takes it, a file's bytes, or one prepared."""
Sound = Source | tuple[NDArray[Any], int]
"""Or samples with their rate in Hz."""


def user_message(
    text: str, images: Sequence[Source] = (), sounds: Sequence[Sound] = (), videos: Sequence[Source] = ()
) -> dict[str, Any]:
    """One message of the user. Put after the text, a sound is listened to; put before it, it is answered."""
    parts: list[dict[str, Any]] = [{"type": "image", "image": image} for image in images]
    parts += [{"type": "video", "video": video} for video in videos]
    parts += [{"type": "text", "text": text}] if text else []
    parts += [{"type": "audio", "audio": sound} for sound in sounds]
    return {"role": "user", "content": parts}


def system_messages(system: str | None = None, schema: Mapping[str, Any] | None = None) -> list[dict[str, Any]]:
    """What stands before all: instructions, and the JSON schema that the answer will follow, if there is one.

    Held to a schema that it does not know, a model has its words cut into it; told, it fills it in.
    """
    told = f"Answer with JSON that follows this schema:\n{json.dumps(schema, ensure_ascii=False)}" if schema else None
    text = "\n\n".join(part for part in (system, told) if part)
    return [{"role": "system", "content": text}] if text else []
