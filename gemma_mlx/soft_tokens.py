"""The pictures, sounds and frames of a prompt as rows of embeddings, made when prefill comes to them."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import mlx.core as mx

from gemma_mlx.decoding.prefill import SoftTokens
from gemma_mlx.inputs.image import ImagePatches
from gemma_mlx.inputs.prompt import MediaSpan
from gemma_mlx.memory import PATCHES_AT_ONCE
from gemma_mlx.model.gemma4 import Gemma4


def soft_tokens(model: Gemma4, spans: Sequence[MediaSpan]) -> list[SoftTokens]:
    """The media of a prompt as `decoding` takes them."""
    return [
        SoftTokens(
            start=span.start,
            stop=span.start + span.length,
            is_image=span.kind != "audio",
            digest=span.digest,
            rows=partial(_embed, model, span),
        )
        for span in spans
    ]


def _embed(model: Gemma4, span: MediaSpan, first: int, last: int) -> mx.array:
    """Rows `first:last` of a picture, sound or frame, [last - first, D]."""
    media = span.media
    if isinstance(media, ImagePatches):
        parts = []
        for start in range(first, last, PATCHES_AT_ONCE):
            part = slice(start, min(start + PATCHES_AT_ONCE, last))
            parts.append(model.embed_image(mx.array(media.patches[part]), mx.array(media.positions[part])))
            mx.eval(parts[-1])
        return mx.concatenate(parts)
    return model.embed_sound(mx.array(media[first:last]))
