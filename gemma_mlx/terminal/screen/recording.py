"""The line in which one speaks: a meter while it listens, then what may be done with the recording.

○ the microphone opens ...   Esc drops
● 00:07  ▇▇▇▇▇▁▁▁▁▁▁▁  23 s left   Enter ends, Esc drops
■ 7.2 s heard   Enter keeps, p plays, r records again, Esc drops
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray
from rich.cells import cell_len, set_cell_size

from gemma_mlx.inputs.sound_stream import SAMPLE_RATE_HZ
from gemma_mlx.terminal.safe import visible_line

Samples = NDArray[np.float32]
State = Literal["recording", "review", "kept", "dropped"]
_METER_COLUMNS = 16
_CLOSING_S = 5.0
"""A device that takes longer to be let go of hangs."""


class Recording(Protocol):
    """What the panel needs of a `Recorder`."""

    @property
    def level(self) -> float: ...
    @property
    def ended_by(self) -> str | None: ...
    @property
    def problem(self) -> str | None: ...
    @property
    def elapsed_s(self) -> float: ...
    @property
    def left_s(self) -> float: ...
    @property
    def samples(self) -> Samples: ...
    def start(self) -> None: ...
    def stop(self) -> None: ...
    def wait(self, limit_s: float) -> None: ...


class RecordingPanel:
    """From the first word to a recording that is kept or dropped. Call `tick` a few times a second."""

    def __init__(
        self, begin: Callable[[], Recording], play: Callable[[Samples], None], stop_playing: Callable[[], None]
    ) -> None:
        self.state: State = "recording"
        self._begin, self._play, self._stop_playing = begin, play, stop_playing
        self._told: str | None = None
        self._record()

    @property
    def result(self) -> Samples | None:
        """What was recorded, once it is kept."""
        return self._recording.samples if self.state == "kept" else None

    @property
    def problem(self) -> str | None:
        """What went wrong with the microphone, for a line."""
        return self._recording.problem

    @property
    def over(self) -> bool:
        return self.state in ("kept", "dropped")

    def wait(self) -> None:
        """Until the microphone is let go of: a process that ends before may hang in its sound library."""
        self._recording.wait(_CLOSING_S)

    def tick(self) -> None:
        """Goes on to the review once the recording has ended; with nothing heard, there is nothing to keep."""
        if self.state == "recording" and self._recording.ended_by is not None:
            self.state = "review" if len(self._recording.samples) and not self._failed else "dropped"

    def key(self, name: str) -> None:
        """Takes a key: "enter", "escape" or what was typed."""
        if self.state == "recording":
            if name == "escape":
                self._recording.stop()
                self.state = "dropped"
            elif name in ("enter", " "):
                self._recording.stop()
        elif self.state == "review":
            self._review(name)

    def line(self, columns: int) -> str:
        """What to show, in at most so many columns, without styles."""
        recording = self._recording
        if self.state == "recording" and not recording.elapsed_s:
            text = "○ the microphone opens ...   Esc drops"  # what is said now is not heard
        elif self.state == "recording":
            filled = round(recording.level * _METER_COLUMNS)
            meter = "▇" * filled + "▁" * (_METER_COLUMNS - filled)
            minutes, seconds = divmod(int(recording.elapsed_s), 60)
            text = f"● {minutes:02}:{seconds:02}  {meter}  {recording.left_s:.0f} s left   Enter ends, Esc drops"
        else:
            ended = {"silence": ", then silence", "full": ", the most that the model hears"}
            heard = f"■ {len(recording.samples) / SAMPLE_RATE_HZ:.1f} s heard{ended.get(recording.ended_by or '', '')}"
            told = f"   {visible_line(self._told)}" if self._told else ""
            text = f"{heard}{told}   Enter keeps, p plays, r records again, Esc drops"
        return text if cell_len(text) <= columns else set_cell_size(text, max(0, columns - 1)) + "…"

    @property
    def _failed(self) -> bool:
        return self._recording.ended_by == "failed"

    def _record(self) -> None:
        self._recording = self._begin()
        self._recording.start()
        self._told = None
        self.state = "recording"

    def _review(self, name: str) -> None:
        if name == "p":
            try:
                self._play(self._recording.samples)
                self._told = "playing"
            except Exception as error:  # a review goes on without a loudspeaker
                self._told = str(error)
        elif name in ("enter", "escape", "r"):
            if self._told == "playing":
                self._stop_playing()
            if name == "r":
                self._record()
            else:
                self.state = "kept" if name == "enter" else "dropped"
