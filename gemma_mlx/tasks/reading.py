"""A picture of text -> the text: small ones in one piece, dense pages in strips at full resolution."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from gemma_mlx.answer import Reply
from gemma_mlx.errors import InputError
from gemma_mlx.gemma import Gemma
from gemma_mlx.inputs.detail import MOST_LOST_READING, auto_budget
from gemma_mlx.inputs.image import BUDGETS, Budget, open_image
from gemma_mlx.inputs.media import Media
from gemma_mlx.inputs.tiles import TILE_TOKENS, joined, strips
from gemma_mlx.inputs.video import is_video
from gemma_mlx.tasks.message import user_message

PROMPT = "Read the text in this image."


@dataclass(frozen=True)
class Page:
    """A picture of text, in the pieces that it is read by."""

    pieces: tuple[Media, ...]
    label: str
    """For a person: "page.png 2480x3508 in 4 strips -> 4,284 tokens"."""


def prepare_page(gemma: Gemma, source: str | bytes | Path, detail: Budget | None = None) -> Page:
    """The picture in strips where one piece would lose small print; with a number for `detail`, always in one piece.

    InputError for what is no picture.
    """
    name = "picture" if isinstance(source, bytes) else Path(source).name
    if is_video(source):
        raise InputError(f"{name} is a video; --ocr reads pictures")
    page = open_image(source)
    chosen = auto_budget(page, MOST_LOST_READING)
    budget = chosen if detail is None or detail == "auto" else detail
    cut = strips(page.width, page.height)
    if len(cut) == 1 or chosen < BUDGETS[-1] or budget == detail:
        media = gemma.prompts.prepare({"type": "image", "image": page}, budget)
        label = f"{name} {page.width}x{page.height} -> {media.soft_tokens:,} tokens"
        return Page((replace(media, label=label),), label)
    pieces = tuple(
        gemma.prompts.prepare(
            {"type": "image", "image": page.crop((0, strip.top, page.width, strip.bottom))}, TILE_TOKENS
        )
        for strip in cut
    )
    tokens = sum(piece.soft_tokens for piece in pieces)
    return Page(pieces, f"{name} {page.width}x{page.height} in {len(cut)} strips -> {tokens:,} tokens")


def read_page(gemma: Gemma, page: Page, prompt: str = PROMPT, **options: Any) -> Reply:
    """The text of `page`, its strips joined; `options` are those of `Gemma.stream`. Figures are those of all strips."""
    replies = [gemma.reply([user_message(prompt, [piece])], **options) for piece in page.pieces]
    first = replies[0]
    if len(replies) == 1:
        return first

    def total(name: str) -> int:
        return sum(getattr(reply, name) for reply in replies)

    unfinished = [reply.finish_reason for reply in replies if reply.finish_reason != "stop"]
    decoding_s = sum((r.generated_tokens - 1) / r.generation_tps for r in replies if r.generation_tps)
    return replace(
        first,
        text=joined([reply.text for reply in replies]),
        thought="\n\n".join(reply.thought for reply in replies if reply.thought),
        finish_reason=unfinished[0] if unfinished else "stop",
        tokens=sum((reply.tokens for reply in replies), ()),
        logprobs=sum((reply.logprobs for reply in replies), ()),
        generation_tps=(total("generated_tokens") - len(replies)) / decoding_s if decoding_s else 0.0,
        peak_memory_bytes=max(reply.peak_memory_bytes for reply in replies),
        prompt_tokens=total("prompt_tokens"),
        reused_tokens=total("reused_tokens"),
        image_tokens=total("image_tokens"),
        generated_tokens=total("generated_tokens"),
        drafted_tokens=total("drafted_tokens"),
        accepted_tokens=total("accepted_tokens"),
        target_passes=total("target_passes"),
    )
