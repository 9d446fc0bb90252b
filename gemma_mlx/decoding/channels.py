"""Tells thought from answer, by token ids and never by text.

The model writes `<|channel>thought\\n ... <channel|>answer<turn|>`. What stands between the two channel tokens is
thought, its first line is the channel's name; everything else is answer.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal, Protocol

Channel = Literal["answer", "thought"]


class PieceStream(Protocol):
    """Token ids one by one -> pieces of text that never cut a character."""

    def push(self, index: int) -> str: ...
    def flush(self) -> str: ...


class ChannelReader:
    """Follows the ids of a turn and says for each which channel its text belongs to."""

    def __init__(self, stream: PieceStream, channel_open: int, channel_close: int) -> None:
        self._stream = stream
        self._open, self._close = channel_open, channel_close
        self._in_thought = False
        self._in_name = False

    def skip(self, ids: Iterable[int]) -> None:
        """Follows ids of the prompt: it may end inside a channel. Their text is not given."""
        for index in ids:
            if index in (self._open, self._close):
                self._in_thought = index == self._open

    def push(self, index: int) -> tuple[Channel, str]:
        """The text that `index` completes, perhaps none, and its channel."""
        if index not in (self._open, self._close):
            return self._channel, self._unnamed(self._stream.push(index))
        channel, text = self._channel, self._unnamed(self._stream.flush())
        self._in_thought = self._in_name = index == self._open
        return channel, text

    def flush(self) -> tuple[Channel, str]:
        """The text that was held back, at the end of the turn."""
        return self._channel, self._unnamed(self._stream.flush())

    @property
    def _channel(self) -> Channel:
        return "thought" if self._in_thought else "answer"

    def _unnamed(self, text: str) -> str:
        """`text` without the channel's name, which ends with the first line."""
        if not self._in_name:
            return text
        _, newline, rest = text.partition("\n")
        self._in_name = not newline
        return rest
