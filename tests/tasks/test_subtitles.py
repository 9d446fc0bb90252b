from __future__ import annotations

import json
from datetime import timedelta
from io import StringIO
from typing import Any

import srt
import webvtt
from hypothesis import given, settings
from hypothesis import strategies as st

from gemma_mlx.tasks.listening import Heard
from gemma_mlx.tasks.subtitles import FORMATS, Format, written
from gemma_mlx.tasks.transcript import PRECISION_S, Segment

ODD = "5 < 6 & 7 --> 8\nnew line, a <i>tag</i>"


def segment(start_s: float, end_s: float, text: str, *, said: str | None = None, doubts: Any = ()) -> Segment:
    return Segment(start_s, end_s, Heard(text, said=said, doubts=doubts, mean_logprob=-0.25))


def text_of(format: Format, segments: list[Segment]) -> str:
    return "".join(written(segments, format, {"file": "a.wav"})) + "\n"


SOME = [
    segment(0.5, 2.25, "One two three."),
    segment(2.75, 4, ODD),
    segment(6.5, 7, "", doubts=("speech without text",)),
    segment(3725.5, 3728, "Four " * 30, said="Vier"),
]


def test_text_has_a_line_for_what_is_said_without_a_long_pause() -> None:
    lines = text_of("txt", SOME).splitlines()
    assert lines == ["One two three. " + " ".join(ODD.split()), " ".join(["Four"] * 30)]


def test_srt_is_read_by_another_program() -> None:
    cues = list(srt.parse(text_of("srt", SOME), ignore_errors=False))
    assert [cue.index for cue in cues] == [1, 2, 3]
    assert [cue.start for cue in cues] == [timedelta(seconds=found) for found in (0.5, 2.75, 3725.5)]
    assert [cue.end for cue in cues] == [timedelta(seconds=found) for found in (2.25, 4, 3728)]
    assert cues[0].content == "One two three."
    assert max(map(len, cues[2].content.splitlines())) <= 42


def test_vtt_is_read_by_another_program() -> None:
    captions = webvtt.from_buffer(StringIO(text_of("vtt", SOME))).captions
    assert [caption.start for caption in captions] == ["00:00:00.500", "00:00:02.750", "01:02:05.500"]
    assert captions[0].text == "One two three."
    assert "5 &lt; 6 &amp; 7 --&gt; 8" in " ".join(captions[1].raw_text.split())


def test_a_table_has_a_row_for_each_segment() -> None:
    rows = [line.split("\t") for line in text_of("tsv", SOME).splitlines()]
    assert rows[0] == ["start_s", "end_s", "text", "doubts"]
    assert {len(row) for row in rows} == {4}
    assert rows[3] == ["6.50", "7.00", "", "speech without text"]


def test_json_says_what_is_doubtful_and_how_exact_the_times_are() -> None:
    found = json.loads(text_of("json", SOME))
    assert found["file"] == "a.wav"
    assert found["precision_s"] == PRECISION_S
    assert found["segments"][2]["doubts"] == ["speech without text"]
    assert found["segments"][3]["said"] == "Vier"
    assert "said" not in found["segments"][0]
    assert found["segments"][0]["mean_logprob"] == -0.25


def test_nothing_said_is_an_empty_transcript_in_every_format() -> None:
    assert text_of("txt", []) == text_of("srt", []) == "\n"
    assert list(srt.parse(text_of("srt", []))) == []
    assert webvtt.from_buffer(StringIO(text_of("vtt", []))).captions == []
    assert json.loads(text_of("json", []))["segments"] == []


@settings(deadline=None, max_examples=50)
@given(
    gaps=st.lists(st.tuples(st.integers(0, 300_000), st.integers(10, 30_000)), min_size=1, max_size=8),
    text=st.text(st.characters(codec="utf-8", exclude_categories=("Cs", "Cc", "Zl", "Zp")), max_size=80),
)
def test_any_text_and_times_come_back(gaps: list[tuple[int, int]], text: str) -> None:
    segments, place = [], 0
    for gap, length in gaps:
        segments.append(segment((place + gap) / 100, (place + gap + length) / 100, f"x {text}"))
        place += gap + length
    cues = list(srt.parse(text_of("srt", segments)))
    captions = webvtt.from_buffer(StringIO(text_of("vtt", segments))).captions
    assert len(cues) == len(captions) == len(segments)
    for cue, caption, expected in zip(cues, captions, segments, strict=True):
        assert abs(cue.start.total_seconds() - expected.start_s) < 0.001
        assert abs(caption.end_in_seconds - expected.end_s) < 1.001
        assert "".join(cue.content.split()) == "".join(expected.text.replace("-->", "->").split())
    for format in FORMATS:
        assert text_of(format, segments).endswith("\n")
