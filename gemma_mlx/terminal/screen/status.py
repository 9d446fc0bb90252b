"""The line at the bottom: figures of this session, each measured; what is not known yet is not there."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from rich.cells import cell_len

from gemma_mlx.terminal.answering import TIMED_TOKENS, speed
from gemma_mlx.terminal.safe import visible_line

if TYPE_CHECKING:
    from gemma_mlx.answer import Reply

SEPARATOR = " · "


@dataclass
class Status:
    """What the line is made of. What comes first stays longest where the window is narrow."""

    model: str = ""
    miniature: bool = False
    activity: str = ""
    """What is being done now; empty while nothing is."""
    used_tokens: int = 0
    context_tokens: int = 0
    memory_bytes: int = 0
    limit_bytes: int = 0
    reply: Reply | None = None
    """The last answer."""

    def line(self, columns: int) -> str:
        """As many of the figures as fit in `columns`."""
        shown = ""
        for part in self._parts():
            longer = f"{shown}{SEPARATOR}{part}" if shown else part
            if cell_len(longer) > columns:
                break
            shown = longer
        return shown or visible_line(self.activity or self.model)[:columns]

    def _parts(self) -> list[str]:
        model = visible_line(self.model) + (" (miniature)" if self.miniature and self.model != "miniature" else "")
        parts = [self.activity, model]
        if self.context_tokens:
            parts.append(f"context {self.used_tokens:,}/{self.context_tokens:,}")
        if self.limit_bytes:
            parts.append(f"{self.memory_bytes / 1e9:.2f}/{self.limit_bytes / 1e9:.2f} GB")
        if self.reply is not None:
            parts += _figures(self.reply)
        return [part for part in parts if part]


def _figures(reply: Reply) -> list[str]:
    figures = [speed(reply) or "", f"first {reply.time_to_first_token_s:.2f} s"]
    if reply.reused_tokens:
        figures.append(f"re-used {reply.reused_tokens:,}/{reply.prompt_tokens:,}")
    if reply.draft_gain is not None and reply.generated_tokens >= TIMED_TOKENS:
        figures.append(f"drafts {reply.draft_gain:.2f}x")
    return figures
