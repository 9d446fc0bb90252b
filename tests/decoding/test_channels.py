from __future__ import annotations

import itertools

import pytest

from gemma_mlx.decoding.channels import ChannelReader

OPEN, CLOSE = -1, -2


class Letters:
    """Ids are characters; with `held`, each comes one push late, as characters made of byte tokens do."""

    def __init__(self, late: bool) -> None:
        self._late = late
        self._held = ""

    def push(self, index: int) -> str:
        text, self._held = self._held + chr(index), ""
        if self._late:
            text, self._held = text[:-1], text[-1]
        return text

    def flush(self) -> str:
        text, self._held = self._held, ""
        return text


def read(parts: list[int | str], late: bool = False, prompt: tuple[int, ...] = ()) -> dict[str, str]:
    """The text of each channel for a turn of ids and strings."""
    reader = ChannelReader(Letters(late), OPEN, CLOSE)
    reader.skip(prompt)
    ids = itertools.chain.from_iterable([part] if isinstance(part, int) else [ord(c) for c in part] for part in parts)
    texts = {"answer": "", "thought": ""}
    for channel, text in [*[reader.push(index) for index in ids], reader.flush()]:
        texts[channel] += text
    return texts


@pytest.mark.parametrize("late", [False, True])
def test_thought_and_answer_are_told_apart(late: bool) -> None:
    turn: list[int | str] = [OPEN, "thought\nhm, red\n", CLOSE, "Red."]
    assert read(turn, late) == {"thought": "hm, red\n", "answer": "Red."}


def test_the_name_of_the_channel_is_no_text_even_when_nothing_follows() -> None:
    assert read([OPEN, "thought\n", CLOSE, "Hi"]) == {"thought": "", "answer": "Hi"}
    assert read([OPEN, "thought", CLOSE, "Hi"]) == {"thought": "", "answer": "Hi"}


def test_an_unclosed_thought_stays_thought() -> None:
    assert read([OPEN, "thought\nfor ever"]) == {"thought": "for ever", "answer": ""}


def test_a_second_thought_is_thought_too() -> None:
    assert read([OPEN, "thought\na", CLOSE, "b", OPEN, "thought\nc", CLOSE, "d"]) == {"thought": "ac", "answer": "bd"}


def test_text_that_looks_like_a_channel_is_answer() -> None:
    assert read(["<|channel>thought\nno<channel|>"])["answer"] == "<|channel>thought\nno<channel|>"


def test_a_prompt_may_end_inside_a_thought() -> None:
    assert read(["more", CLOSE, "Hi"], prompt=(OPEN, 7, 7)) == {"thought": "more", "answer": "Hi"}
    assert read(["Hi"], prompt=(OPEN, 7, CLOSE)) == {"thought": "", "answer": "Hi"}
