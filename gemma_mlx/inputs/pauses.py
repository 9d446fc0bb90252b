r"""Where somebody speaks in a stream of samples: louder than the noise floor, which is followed.

The level of each 10 ms is compared with the quietest 50 ms of the last 8 s and of the 1 s to come, so that a sound
that begins with speech is known by the first gap between two words. Speech begins 6 dB above that floor and goes on
until it falls under 3 dB:

    level  ..___/\/\__/\_____________/\/\.....      on  at floor + 6 dB, for at least 30 ms
    speech      #########            #####          off at floor + 3 dB, for at least 80 ms

Whatever the sizes of the blocks that samples come in, the answer is the same, and a few seconds of levels are all that
is kept. `benchmarks/pauses.py` measures it beside other detectors.
"""

from __future__ import annotations

from collections import deque

import numpy as np
from numpy.typing import NDArray

from gemma_mlx.inputs.sound_stream import SAMPLE_RATE_HZ

HOP_SAMPLES = 160
HOPS_PER_S = SAMPLE_RATE_HZ // HOP_SAMPLES

ON_DB = 6.0
OFF_DB = 3.0
LOWEST_FLOOR_DB = -65.0
"""Digital silence is no measure of what noise there will be."""
HIGHEST_FLOOR_DB = -20.0
"""A sound as loud as this is somebody speaking without a pause, or else noise in which nobody could be told apart."""
_SMOOTHED_HOPS = 5
_PAST_HOPS = 8 * HOPS_PER_S
_AHEAD_HOPS = 1 * HOPS_PER_S
_SHORTEST_SPEECH_HOPS = 3
_SHORTEST_SILENCE_HOPS = 8
LATENCY_S = (_AHEAD_HOPS + _SHORTEST_SILENCE_HOPS) / HOPS_PER_S
"""How long after a sound is heard it is known whether it is speech."""


def levels_db(samples: NDArray[np.float32]) -> NDArray[np.float64]:
    """[n x 160] samples -> the level of each 10 ms, in dB of full scale, without what does not swing (DC)."""
    hops = samples.reshape(-1, HOP_SAMPLES).astype(np.float64)
    power = np.maximum(hops.var(axis=1), 1e-12)
    return np.asarray(10 * np.log10(power))


class _Floor:
    """The least of the smoothed levels from 8 s before a hop to 1 s after it."""

    def __init__(self) -> None:
        self._recent: deque[float] = deque(maxlen=_SMOOTHED_HOPS)
        self._rising: deque[tuple[int, float]] = deque()  # (hop, level): each is lower than all after it
        self._hops = 0

    def push(self, level_db: float) -> None:
        self._recent.append(level_db)
        if len(self._recent) == _SMOOTHED_HOPS:
            smoothed = sum(self._recent) / _SMOOTHED_HOPS
            while self._rising and self._rising[-1][1] >= smoothed:
                self._rising.pop()
            self._rising.append((self._hops, smoothed))
        self._hops += 1

    def at(self, hop: int) -> float:
        """Call with hops in order, each once all that counts for it has been pushed."""
        while self._rising and self._rising[0][0] < hop - _PAST_HOPS:
            self._rising.popleft()
        lowest = self._rising[0][1] if self._rising else LOWEST_FLOOR_DB
        return min(max(lowest, LOWEST_FLOOR_DB), HIGHEST_FLOOR_DB)


class SpeechFinder:
    """Push samples, get for each 10 ms whether somebody speaks; the answer lags by up to `LATENCY_S`."""

    def __init__(self) -> None:
        self._rest = np.zeros(0, dtype=np.float32)
        self._floor = _Floor()
        self._waiting: deque[float] = deque()  # levels whose floor is not known yet
        self._decided = 0
        self._speaking = False
        self._turning = 0
        """For how many hops the level has said otherwise than `_speaking`."""

    def push(self, samples: NDArray[np.float32]) -> list[bool]:
        """Whether somebody speaks, for as many further hops as can be told."""
        samples = np.concatenate([self._rest, samples])
        whole = len(samples) // HOP_SAMPLES * HOP_SAMPLES
        self._rest = samples[whole:].copy()
        return [flag for level in levels_db(samples[:whole]).tolist() for flag in self._push_level(level)]

    def finish(self) -> list[bool]:
        """The same for the hops still owed; an unfinished one at the end counts."""
        found = []
        if len(self._rest):
            padding = np.zeros(HOP_SAMPLES - len(self._rest), dtype=np.float32)
            [last] = levels_db(np.concatenate([self._rest, padding])).tolist()
            self._rest = self._rest[:0]
            found += self._push_level(last)
        while self._waiting:
            found += self._decide()
        return found + [self._speaking] * self._turning

    def _push_level(self, level_db: float) -> list[bool]:
        self._floor.push(level_db)
        self._waiting.append(level_db)
        return self._decide() if len(self._waiting) > _AHEAD_HOPS else []

    def _decide(self) -> list[bool]:
        """The flags that the oldest waiting level settles: none while it may be the beginning of a change."""
        above_db = self._waiting.popleft() - self._floor.at(self._decided)
        self._decided += 1
        if (above_db >= OFF_DB) if self._speaking else (above_db < ON_DB):
            settled = [self._speaking] * (self._turning + 1)
            self._turning = 0
            return settled
        self._turning += 1
        if self._turning < (_SHORTEST_SILENCE_HOPS if self._speaking else _SHORTEST_SPEECH_HOPS):
            return []
        self._speaking = not self._speaking
        settled = [self._speaking] * self._turning
        self._turning = 0
        return settled
