"""Segments as text, subtitles or a table: pieces to be written one after the other, and a newline after the last.

Times are those of the cuts. A segment is one cue, whatever its length: where in it a word is said is not known, and is
not made up. Lines of a cue are broken between words.
"""

from __future__ import annotations

import html
import json
import textwrap
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Literal

from gemma_mlx.errors import GemmaError
from gemma_mlx.tasks.transcript import PRECISION_S, Segment

Format = Literal["txt", "srt", "vtt", "tsv", "json"]
FORMATS: tuple[Format, ...] = ("txt", "srt", "vtt", "tsv", "json")
TIMED: frozenset[Format] = frozenset({"srt", "vtt"})
"""Those that are shown while something is heard."""

PARAGRAPH_S = 2.0
"""A pause as long as this begins a new line of plain text."""
LINE_CHARACTERS = 42
"""As long as a line of subtitles usually is."""


def written(segments: Iterable[Segment], format: Format, about: dict[str, Any]) -> Iterator[str]:
    """The transcript in `format`, piece by piece; `about` is what else JSON says of the recording.

    Where `segments` end in an error, JSON says which one, is whole all the same, and the error goes on.
    """
    writers: dict[Format, Callable[[Iterable[Segment]], Iterator[str]]] = {
        "txt": _txt,
        "srt": _srt,
        "vtt": _vtt,
        "tsv": _tsv,
        "json": lambda found: _json(found, about),
    }
    return writers[format](segments)


def as_object(segment: Segment) -> dict[str, Any]:
    """What JSON says of a segment."""
    heard = segment.heard
    found: dict[str, Any] = {
        "start_s": round(segment.start_s, 2),
        "end_s": round(segment.end_s, 2),
        "text": segment.text,
        **({} if heard.said is None else {"said": heard.said}),
        "doubts": list(heard.doubts),
        "mean_logprob": heard.mean_logprob,
    }
    return {**found, "tokens": heard.tokens, "logprobs": heard.logprobs} if heard.logprobs else found


def _txt(segments: Iterable[Segment]) -> Iterator[str]:
    before: Segment | None = None
    for segment in segments:
        if text := " ".join(segment.text.split()):
            gap = "" if before is None else "\n" if segment.start_s - before.end_s >= PARAGRAPH_S else " "
            yield gap + text
            before = segment


def _srt(segments: Iterable[Segment]) -> Iterator[str]:
    for number, segment in enumerate(_with_text(segments), start=1):
        lines = [line.replace("-->", "->") for line in _lines(segment.text)]
        gap = "\n\n" if number > 1 else ""
        times = f"{_clock(segment.start_s, ',')} --> {_clock(segment.end_s, ',')}"
        yield f"{gap}{number}\n{times}\n" + "\n".join(lines)


def _vtt(segments: Iterable[Segment]) -> Iterator[str]:
    yield "WEBVTT"
    for segment in _with_text(segments):
        lines = [html.escape(line, quote=False) for line in _lines(segment.text)]
        times = f"{_clock(segment.start_s, '.')} --> {_clock(segment.end_s, '.')}"
        yield f"\n\n{times}\n" + "\n".join(lines)


def _tsv(segments: Iterable[Segment]) -> Iterator[str]:
    yield "start_s\tend_s\ttext\tdoubts"
    for segment in segments:
        text, doubts = " ".join(segment.text.split()), ", ".join(segment.heard.doubts)
        yield f"\n{segment.start_s:.2f}\t{segment.end_s:.2f}\t{text}\t{doubts}"


def _json(segments: Iterable[Segment], about: dict[str, Any]) -> Iterator[str]:
    head = json.dumps({**about, "precision_s": PRECISION_S}, ensure_ascii=False)
    yield head[:-1] + ', "segments": ['
    try:
        for number, segment in enumerate(segments):
            yield ("," if number else "") + "\n  " + json.dumps(as_object(segment), ensure_ascii=False)
    except GemmaError as error:
        yield f'\n], "error": {json.dumps(str(error), ensure_ascii=False)}}}'
        raise
    yield "\n]}"


def _with_text(segments: Iterable[Segment]) -> Iterator[Segment]:
    return (segment for segment in segments if segment.text.strip())


def _lines(text: str) -> list[str]:
    return textwrap.wrap(" ".join(text.split()), LINE_CHARACTERS)


def _clock(seconds: float, mark: str) -> str:
    """01:02:03,450"""
    milliseconds = round(seconds * 1000)
    minutes, milliseconds = divmod(milliseconds, 60_000)
    return f"{minutes // 60:02}:{minutes % 60:02}:{milliseconds // 1000:02}{mark}{milliseconds % 1000:03}"
