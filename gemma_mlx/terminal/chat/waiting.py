"""What waits above the input line: attached media, long pasted text, and messages that wait for their turn."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

from gemma_mlx.terminal.safe import visible_line, visible_name

if TYPE_CHECKING:
    from gemma_mlx.tasks.turn import Attached

LONG_PASTE_CHARACTERS = 4000
"""A longer paste is not drawn into the input line: it becomes a chip, and is sent in full."""


@dataclass(frozen=True)
class PastedText:
    """A paste too long to be looked at."""

    text: str

    @cached_property
    def label(self) -> str:
        size_bytes = len(self.text.encode("utf-8", "replace"))
        size = f"{size_bytes / 1e6:.1f} MB" if size_bytes >= 1e6 else f"{size_bytes / 1e3:.0f} KB"
        return f"pasted text, {size}, {self.text.count(chr(10)) + 1:,} lines"


@dataclass(frozen=True, eq=False)
class Message:
    """A message on its way to the model: what was typed, and the chips that go with it."""

    typed: str
    chips: tuple[Attached | PastedText, ...] = ()
    whole: bool = True
    """Whether nothing that belongs to it is still being read."""

    @property
    def text(self) -> str:
        """What the model reads: long pastes, then what was typed."""
        pasted = [chip.text for chip in self.chips if isinstance(chip, PastedText)]
        return "\n\n".join(part for part in [*pasted, self.typed] if part)

    @property
    def media(self) -> tuple[Attached, ...]:
        return tuple(chip for chip in self.chips if not isinstance(chip, PastedText))

    @property
    def label(self) -> str:
        """The beginning of what was typed; where nothing was, what is attached."""
        first, _, more = self.typed.strip().partition("\n")
        if not first:
            return ", ".join(chip.label for chip in self.chips)
        return first[:60] + ("…" if len(first) > 60 or more else "")


@dataclass
class Waiting:
    """What goes out with the next message, and the messages that cannot go out yet."""

    chips: list[Attached | PastedText] = field(default_factory=list)
    preparing: list[str] = field(default_factory=list)
    """Names of what is being read just now."""
    messages: list[Message] = field(default_factory=list)

    def take(self, typed: str) -> Message:
        """The message of all that waits with what was typed; nothing of it waits any more."""
        chips, self.chips = tuple(self.chips), []
        return Message(typed, chips)

    def drop(self, number: int | None) -> list[str]:
        """Takes back the chip of that number, or all; their labels. Without chips, the messages that wait."""
        if number is None:
            labels = [chip.label for chip in self.chips] or [message.label for message in self.messages]
            if self.chips:
                self.chips = []
            else:
                self.messages = []
            return labels
        return [self.chips.pop(number - 1).label] if 0 < number <= len(self.chips) else []

    def drop_last(self) -> None:
        """Takes back the chip that came last; without chips, the message that came last."""
        if self.chips or self.messages:
            (self.chips or self.messages).pop()

    def lines(self, columns: int) -> list[str]:
        """A line for each of them, safe to show."""
        lines = [visible_name(f"[{number}] {chip.label}") for number, chip in enumerate(self.chips, start=1)]
        lines += [visible_name(f"[reading {name} ...]") for name in self.preparing]
        lines += [visible_line(f"[waits] {message.label}") for message in self.messages]
        return [cut(line, columns) for line in lines]


def cut(line: str, columns: int) -> str:
    """`line` in at most so many columns of the terminal."""
    from rich.cells import cell_len, set_cell_size

    return line if cell_len(line) <= columns else set_cell_size(line, max(0, columns - 1)) + "…"
