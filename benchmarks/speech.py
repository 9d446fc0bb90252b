"""Transcripts of sets of recordings of any length, as `gemma-mlx transcribe` makes them, beside those of other systems.

The sets and the error rates are those of `benchmarks.quality`, which compares folders of one model over short clips.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from benchmarks.machine import adapter_facts, where_measured
from benchmarks.quality_sets import EvalSet, Hypotheses
from gemma_mlx.errors import GemmaError
from gemma_mlx.gemma import Gemma
from gemma_mlx.inputs.sound_stream import SAMPLE_RATE_HZ, open_sound
from gemma_mlx.tasks.listening import Listener
from gemma_mlx.tasks.transcript import Segment, segments
from gemma_mlx.tasks.transcription import Wanted
from gemma_mlx.tasks.windows import Samples, best_aim, recording_windows

Point = dict[str, Any]


def own_point(
    gemma: Gemma, one: EvalSet, max_tokens: int, *, spoken: bool, told: Callable[[str, GemmaError | None], None]
) -> Point:
    """The figures of one set; `told` hears each file's name as it is begun, and then perhaps why it failed."""
    listener = Listener(gemma, Wanted(), max_tokens=max_tokens)
    aim = best_aim(miniature=gemma.miniature, prompt_tokens=listener.prompt_tokens, subtitles=False)
    texts: dict[str, str] = {}
    samples = found_segments = doubted = 0
    seconds = 0.0
    for path in one.expected:
        told(path.name, None)
        started_s = time.perf_counter()
        heard: list[Segment] = []
        lengths: list[int] = []
        try:
            with open_sound(path) as sound:
                windows = recording_windows(_counted(sound.blocks, lengths), aim)
                heard += segments(windows, lambda window: listener.hear(window.samples, window.spoken_s))
        except GemmaError as error:
            told(path.name, error)
            continue
        seconds += time.perf_counter() - started_s
        samples += sum(lengths)
        found_segments += len(heard)
        doubted += sum(bool(segment.heard.doubts) for segment in heard)
        texts[path.name] = " ".join(segment.text for segment in heard if segment.text)
    duration_s = samples / SAMPLE_RATE_HZ
    return {
        "set": one.name,
        "system": gemma.name,
        **one.figures(texts, spoken=spoken),
        "duration_s": duration_s,
        "seconds": seconds,
        "real_time_factor": seconds / duration_s if duration_s else None,
        "segments": found_segments,
        "doubted": doubted,
    }


def _counted(blocks: Iterable[Samples], lengths: list[int]) -> Iterator[Samples]:
    for block in blocks:
        lengths.append(len(block))
        yield block


def other_points(one: EvalSet, others: Sequence[Hypotheses], *, spoken: bool) -> list[Point]:
    """The figures of other systems' texts for the same files."""
    return [
        {"set": one.name, "system": other.name, **one.figures(texts, spoken=spoken)}
        for other in others
        if (texts := other.of(one))
    ]


def report_of(gemma: Gemma, adapter: Path | None, points: Sequence[Point], *, spoken: bool) -> Point:
    """All of it, with where it comes from."""
    return {
        "benchmark": "speech",
        **where_measured(),
        "model": gemma.name,
        "miniature": gemma.miniature,
        **adapter_facts(adapter, gemma.adapter_digest),
        "scored": "as spoken" if spoken else "as written",
        "points": list(points),
    }
