"""What was said, as it stands above the input line."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from gemma_mlx.terminal.safe import visible, visible_name
from gemma_mlx.terminal.screen.answering import DIM, PLAIN
from gemma_mlx.terminal.screen.layout import PROMPT

if TYPE_CHECKING:
    from gemma_mlx.tasks.turn import Turn

SAID_CHARACTERS = 2000
"""So much of a message stands above its answer; of a longer one the beginning."""


def message_lines(text: str, labels: Iterable[str]) -> str:
    """A message with the labels of what went out with it."""
    said = visible(text[:SAID_CHARACTERS]).replace("\n", "\n" + " " * len(PROMPT))
    chips = "".join(f"  [{visible_name(label)}]\n" for label in labels)
    return f"\n\x1b[1m{PROMPT}{said}{PLAIN}\n{DIM}{chips}{PLAIN}"


def turn_lines(turn: Turn, columns: int) -> str:
    """A turn of earlier: the message and its answer."""
    from gemma_mlx.terminal.screen.markdown import MarkdownStream

    markdown = MarkdownStream(columns)
    answer = markdown.feed(turn.answer) + markdown.finish()
    return message_lines(turn.text, [item.label for item in turn.attached]) + answer
