from __future__ import annotations

import numpy as np

from gemma_mlx.tasks.listening import Heard
from gemma_mlx.tasks.transcript import segments
from gemma_mlx.tasks.windows import Window

NONE = np.zeros(0, np.float32)


def window(start_s: float, end_s: float, *, follows_cut: bool = False, ends_in_cut: bool = False) -> Window:
    return Window(start_s, end_s, end_s - start_s, NONE, follows_cut, ends_in_cut)


def test_segments_come_as_soon_as_their_text_is_certain() -> None:
    heard: list[float] = []

    def hear(one: Window) -> Heard:
        heard.append(one.start_s)
        return Heard(f"at {one.start_s:.0f}")

    coming = segments([window(0, 1), window(2, 3, ends_in_cut=True), window(3, 4, follows_cut=True)], hear)
    assert next(coming).text == "at 0"
    assert heard == [0]
    assert [(segment.start_s, segment.end_s, segment.follows_cut) for segment in coming] == [
        (2, 3, False),
        (3, 4, True),
    ]


def test_words_heard_on_both_sides_of_a_cut_are_written_once() -> None:
    texts = {0: "one two three fou", 4: "two three four five six", 8: "five six seven"}
    windows = [
        window(0, 4, ends_in_cut=True),
        window(4, 8, follows_cut=True, ends_in_cut=True),
        window(8, 12, follows_cut=True),
    ]
    found = [segment.text for segment in segments(windows, lambda one: Heard(texts[int(one.start_s)]))]
    assert found == ["one two three", "four five six", "seven"]


def test_a_translation_is_joined_with_what_was_said() -> None:
    heard = {0: Heard("good day to", "guten Tag an"), 4: Heard("good day to all", "Tag an alle")}
    windows = [window(0, 4, ends_in_cut=True), window(4, 8, follows_cut=True)]
    found = [(one.text, one.heard.said) for one in segments(windows, lambda one: heard[int(one.start_s)])]
    assert found == [("good day to", "guten Tag an"), ("all", "alle")]


def test_a_cut_at_the_end_of_the_sound_loses_nothing() -> None:
    assert [one.text for one in segments([window(0, 4, ends_in_cut=True)], lambda one: Heard("last"))] == ["last"]


def test_nothing_said_is_left_out_unless_it_is_doubtful() -> None:
    heard = {0: Heard(""), 2: Heard("", doubts=("speech without text",))}
    found = list(segments([window(0, 1), window(2, 3)], lambda one: heard[int(one.start_s)]))
    assert [segment.start_s for segment in found] == [2]
