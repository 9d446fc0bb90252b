"""A recording of any length -> the stretches of speech that the model hears one at a time.

    speech   ####_###______________######_####################################_____
    windows  [------]              [------------------][----------------------]
             a pause of `pause_s` ends one             ^ `longest_s` without a pause: cut at the quietest place,
                                                         both sides hear a little of the other (`gemma_mlx.tasks.seams`)

Silence between windows is never sent. A window that gets too long is cut at its longest pause. What comes out depends
on the samples alone, not on the blocks that they came in, and no more than one window and one block is held.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import chain

import numpy as np
from numpy.typing import NDArray

from gemma_mlx.inputs.pauses import HOP_SAMPLES, HOPS_PER_S, SpeechFinder, levels_db
from gemma_mlx.inputs.waveform import SAMPLE_RATE_HZ, SAMPLES_PER_FRAME, TRAINED_SOUND_S

Samples = NDArray[np.float32]

HEARD_POSITIONS = 450
"""Sound that lies beyond about this position, prompt included, is heard badly by Gemma 4 12B.

So says a report with controls (discussion 45 of google/gemma-4-12B-it on Hugging Face); we have not measured it.
"""
MINIATURE_LONGEST_S = 4.0
"""The miniature was trained on at most 8 spoken digits, with less than 0.25 s between two."""
CUE_S = 7.0
"""How long a subtitle may stand."""
MARGIN_S = 0.2
OVERLAP_S = 0.8
"""What each side of a cut without a pause hears beyond it: about two words."""
_SHORTEST_CUT_S = 0.15
_SHORTEST_SPOKEN_S = 0.1
_SMOOTHED_HOPS = 10


@dataclass(frozen=True)
class Aim:
    """How windows are cut: none has more speech and pauses than `longest_s`, none holds a pause of `pause_s`."""

    longest_s: float
    pause_s: float


def best_aim(*, miniature: bool, prompt_tokens: int, subtitles: bool) -> Aim:
    """What the model hears best, behind `prompt_tokens` positions; for subtitles no longer than one may stand."""
    if miniature:
        return Aim(MINIATURE_LONGEST_S, 0.3)
    frames_per_s = SAMPLE_RATE_HZ / SAMPLES_PER_FRAME
    heard_s = max(2.0, (HEARD_POSITIONS - prompt_tokens) / frames_per_s - 2 * OVERLAP_S)
    longest_s = min(heard_s, TRAINED_SOUND_S - 2 * OVERLAP_S)
    return Aim(min(longest_s, CUE_S), 0.5) if subtitles else Aim(longest_s, 1.0)


@dataclass(frozen=True, eq=False)
class Window:
    """Speech from `start_s` to `end_s`, and a little more of the sound around it, to send."""

    start_s: float
    end_s: float
    spoken_s: float
    """How much of that is not a pause."""
    samples: Samples
    follows_cut: bool
    """Whether somebody was speaking on at `start_s`, so that its words overlap with those of the window before."""
    ends_in_cut: bool
    """Whether somebody was speaking on at `end_s`."""


def speech_windows(blocks: Iterable[Samples], aim: Aim) -> Iterator[Window]:
    """The windows of the sound in `blocks`, in order, each as soon as it is known."""
    finder, cutter = SpeechFinder(), _Cutter(aim)
    for block in blocks:
        cutter.hear(block)
        yield from cutter.take(finder.push(block))
    yield from cutter.take(finder.finish())
    yield from cutter.finish()


def recording_windows(blocks: Iterable[Samples], aim: Aim) -> Iterator[Window]:
    """The windows of a recording; one so short that its speech is one window is sent as it is, ends included."""
    coming = iter(blocks)
    held: list[Samples] = []
    for block in coming:
        held.append(block)
        if sum(map(len, held)) > aim.longest_s * SAMPLE_RATE_HZ:
            yield from speech_windows(chain(held, coming), aim)
            return
    windows = list(speech_windows(held, aim))
    if len(windows) == 1:
        windows = [replace(windows[0], samples=np.concatenate(held))]
    yield from windows


def from_first_to_last_word(samples: Samples) -> Samples:
    """[n] samples without the silence at both ends, but for a margin; all of them where nobody speaks."""
    whole_s = len(samples) / SAMPLE_RATE_HZ + 1
    windows = list(speech_windows([samples], Aim(whole_s, whole_s)))
    return windows[0].samples if windows else samples


class _Cutter:
    """Follows who speaks, hop by hop of 10 ms, and holds the samples that may still be sent."""

    def __init__(self, aim: Aim) -> None:
        self._longest, self._pause = _hops(aim.longest_s), _hops(aim.pause_s)
        self._held = np.zeros(0, dtype=np.float32)
        self._held_from = 0  # in samples
        self._hop = 0
        self._start: int | None = None  # of the window's speech
        self._stop = 0  # of the speech so far
        self._spoken = 0
        self._follows_cut = False
        self._pauses: list[tuple[int, int]] = []  # inside the window
        self._margin_before = 0

    def hear(self, block: Samples) -> None:
        reach = self._hop if self._start is None else self._start
        keep_from = max(self._held_from, (reach - _hops(OVERLAP_S)) * HOP_SAMPLES)
        self._held = np.concatenate([self._held[keep_from - self._held_from :], block])
        self._held_from = keep_from

    def take(self, flags: Iterable[bool]) -> Iterator[Window]:
        for speaking in flags:
            if speaking:
                self._speech()
            self._hop += 1
            if self._start is not None and self._hop - self._stop >= self._pause:
                yield from self._whole()
            while self._start is not None and self._stop - self._start >= self._longest:
                yield from self._shortened()

    def finish(self) -> Iterator[Window]:
        if self._start is not None:
            yield from self._whole()

    def _speech(self) -> None:
        if self._start is None:
            self._begin(self._hop, _hops(MARGIN_S))
        elif self._hop - self._stop >= _hops(_SHORTEST_CUT_S):
            self._pauses.append((self._stop, self._hop))
        self._stop = self._hop + 1

    def _begin(self, hop: int, margin: int, *, follows_cut: bool = False) -> None:
        self._start, self._margin_before, self._follows_cut = hop, margin, follows_cut
        self._pauses = [pause for pause in self._pauses if pause[0] > hop]

    def _whole(self) -> Iterator[Window]:
        """All that has been said: a pause, or the end, has come."""
        yield from self._window(self._stop, _hops(MARGIN_S))
        self._start, self._pauses = None, []

    def _shortened(self) -> Iterator[Window]:
        """As much as fits: up to the longest pause, preferably a late one, else up to the quietest place."""
        assert self._start is not None
        late = [pause for pause in self._pauses if pause[0] - self._start >= self._longest // 3]
        if found := late or self._pauses:
            begin, end = max(found, key=lambda pause: (pause[1] - pause[0], pause))
            margin = min(_hops(MARGIN_S), (end - begin) // 2)
            yield from self._window(begin, margin)
            self._begin(end, margin)
        else:
            cut = self._start + quietest(self._sound(self._start, self._start + self._longest))
            yield from self._window(cut, _hops(OVERLAP_S), ends_in_cut=True)
            self._begin(cut, _hops(OVERLAP_S), follows_cut=True)

    def _window(self, stop: int, margin: int, *, ends_in_cut: bool = False) -> Iterator[Window]:
        assert self._start is not None
        inside = [pause for pause in self._pauses if pause[1] <= stop]
        spoken_s = (stop - self._start - sum(end - begin for begin, end in inside)) / HOPS_PER_S
        if spoken_s >= _SHORTEST_SPOKEN_S:
            samples = self._sound(self._start - self._margin_before, stop + margin)
            times_s = self._start / HOPS_PER_S, stop / HOPS_PER_S
            yield Window(*times_s, spoken_s, samples, self._follows_cut, ends_in_cut)

    def _sound(self, start: int, stop: int) -> Samples:
        first = max(0, start * HOP_SAMPLES - self._held_from)
        return self._held[first : stop * HOP_SAMPLES - self._held_from].copy()


def quietest(samples: Samples) -> int:
    """The hop of 10 ms in the middle of the quietest 0.1 s, in the middle half of `samples`."""
    whole = len(samples) // HOP_SAMPLES
    levels = levels_db(samples[: whole * HOP_SAMPLES])
    smoothed = np.convolve(levels, np.ones(_SMOOTHED_HOPS), mode="same")
    first, last = whole // 4, max(whole // 4 + 1, whole * 3 // 4)
    return first + int(np.argmin(smoothed[first:last]))


def _hops(seconds: float) -> int:
    return round(seconds * HOPS_PER_S)
