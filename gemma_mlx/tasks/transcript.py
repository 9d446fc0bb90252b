"""A recording of any length -> its segments: what is said from when to when, in bounded memory.

    blocks of samples -> windows of speech (`windows`) -> what is heard in each (`listening`) -> seams -> segments

Times come from the cuts, never from the model.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace

from gemma_mlx.tasks.listening import Heard
from gemma_mlx.tasks.seams import without_overlap
from gemma_mlx.tasks.windows import OVERLAP_S, Window

PRECISION_S = 0.25
"""How far a time may be from the first or last sound of what is said: see long-speech in `benchmarks/results`."""
_MOST_WORDS_PER_S = 8


@dataclass(frozen=True)
class Segment:
    """What is said from `start_s` to `end_s`, in seconds from the beginning of the recording."""

    start_s: float
    end_s: float
    heard: Heard
    follows_cut: bool = False
    """Whether somebody spoke on without a pause, so that `start_s` is where the sound was cut."""

    @property
    def text(self) -> str:
        return self.heard.text


def segments(windows: Iterable[Window], hear: Callable[[Window], Heard]) -> Iterator[Segment]:
    """The segments of `windows` in order, each as soon as it is known. Their times do not overlap.

    One without text is left out, unless it is doubtful that nothing was said.
    """
    held: Segment | None = None
    for window in windows:
        segment = Segment(window.start_s, window.end_s, hear(window), window.follows_cut)
        if held is not None:
            before, segment = _joined(held, segment)
            yield from _worth_it(before)
        held = segment if window.ends_in_cut else None
        if held is None:
            yield from _worth_it(segment)
    if held is not None:
        yield from _worth_it(held)


def _joined(left: Segment, right: Segment) -> tuple[Segment, Segment]:
    """Both without what they have in common: each heard a little of the other."""
    most_words = round(2 * OVERLAP_S * _MOST_WORDS_PER_S)
    texts = without_overlap(left.text, right.text, most_words)
    if left.heard.said is None or right.heard.said is None:
        said: tuple[str | None, str | None] = (left.heard.said, right.heard.said)
    else:
        said = without_overlap(left.heard.said, right.heard.said, most_words)
    return (
        replace(left, heard=replace(left.heard, text=texts[0], said=said[0])),
        replace(right, heard=replace(right.heard, text=texts[1], said=said[1])),
    )


def _worth_it(segment: Segment) -> Iterator[Segment]:
    if segment.text or segment.heard.doubts:
        yield segment
