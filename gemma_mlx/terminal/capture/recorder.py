"""One recording of up to 30 s: begun, watched, and ended by a key, by silence, by its length or by the device."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from gemma_mlx.errors import GemmaError
from gemma_mlx.inputs.pauses import HOPS_PER_S, LATENCY_S, SpeechFinder
from gemma_mlx.inputs.sound_stream import SAMPLE_RATE_HZ
from gemma_mlx.terminal.capture.microphone import MicrophoneGoneError, microphone_blocks
from gemma_mlx.terminal.capture.silenced import libraries_silenced

LONGEST_S = 30.0
"""The model was trained on clips up to this length (model card)."""
QUIET_S = 1.6
"""So long after somebody has spoken, nobody is expected to go on."""
LOWEST_DB = -60.0
_FALL = 0.7
"""The level falls no faster than by this factor in a block, for the eye to follow."""

Ended = Literal["key", "silence", "full", "unplugged", "failed"]
Blocks = Callable[[Callable[[], bool]], Iterator[NDArray[np.float32]]]


class Recorder:
    """Listens in a thread of its own. Samples are held in memory only, and go with the recorder."""

    def __init__(self, device: int | None = None, blocks: Blocks | None = None) -> None:
        self.level = 0.0
        """How loud it is just now, from 0 (silence) to 1 (full scale), in steps of decibels."""
        self.ended_by: Ended | None = None
        """None while it listens."""
        self.problem: str | None = None
        """One line about a microphone that could not be used, or went away."""
        self._blocks = blocks or (lambda stopped: microphone_blocks(stopped, device, self._tell))
        self._heard: list[NDArray[np.float32]] = []
        self._count = 0
        self._stopping: Ended | None = None
        self._speech = SpeechFinder()
        self._spoken, self._quiet_hops = False, 0
        self._thread = threading.Thread(target=self._listen, name="recorder", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Ends it soon; `ended_by` tells when."""
        self._stopping = self._stopping or "key"

    def wait(self, limit_s: float | None = None) -> None:
        """Until it has ended and let go of the microphone, or for so long."""
        self._thread.join(limit_s)

    @property
    def elapsed_s(self) -> float:
        return self._count / SAMPLE_RATE_HZ

    @property
    def left_s(self) -> float:
        return max(0.0, LONGEST_S - self.elapsed_s)

    @property
    def samples(self) -> NDArray[np.float32]:
        """What was heard [n], at 16 kHz, at most 30 s of it."""
        heard = np.concatenate(self._heard) if self._heard else np.zeros(0, dtype=np.float32)
        return heard[: round(LONGEST_S * SAMPLE_RATE_HZ)]

    def _listen(self) -> None:
        try:
            with libraries_silenced():
                for block in self._blocks(lambda: self._stopping is not None):
                    self._take(block)
        except MicrophoneGoneError as error:
            self._stopping, self.problem = "unplugged", str(error)
        except GemmaError as error:
            self._stopping, self.problem = "failed", str(error)
        except Exception as error:
            self._stopping, self.problem = (
                "failed",
                f"the microphone failed ({' '.join(str(error).split())}); try again",
            )
        self._heard = [self.samples]
        self.ended_by = self._stopping or "key"

    def _tell(self, line: str) -> None:
        self.problem = line

    def _take(self, block: NDArray[np.float32]) -> None:
        self._heard.append(block)
        self._count += len(block)
        power = float(np.square(block, dtype=np.float64).mean()) if len(block) else 0.0
        level = 1 - 10 * np.log10(max(power, 1e-12)) / LOWEST_DB
        self.level = float(max(0.0, min(1.0, level), _FALL * self.level))
        for speaking in self._speech.push(block):
            self._spoken = self._spoken or speaking
            self._quiet_hops = 0 if speaking else self._quiet_hops + 1
        if self._spoken and self._quiet_hops / HOPS_PER_S >= QUIET_S - LATENCY_S:
            self._stopping = self._stopping or "silence"
        if self.left_s == 0:
            self._stopping = self._stopping or "full"
