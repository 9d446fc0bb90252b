"""Markdown drawn for tests."""

from __future__ import annotations

import re

from gemma_mlx.terminal.screen.markdown import MarkdownStream

SGR = re.compile(r"\x1b\[[0-9;]*m")


def draw(text: str, width: int = 80, *, colour: bool = False, pieces: list[int] | None = None) -> str:
    """All that comes of `text`, fed in `pieces` of so many characters, the last of them again and again."""
    stream = MarkdownStream(width, colour=colour)
    sizes = list(pieces or [max(1, len(text))])
    out = ""
    while text:
        size = sizes.pop(0) if len(sizes) > 1 else sizes[0]
        out += stream.feed(text[:size])
        text = text[size:]
    return out + stream.finish()
