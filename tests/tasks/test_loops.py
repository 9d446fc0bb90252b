"""Planted loops and natural repetition, 300 of each, drawn from seeds: the same at every run."""

from __future__ import annotations

import random
import re

import pytest

from gemma_mlx.tasks.loops import Loop, LoopWatch

CASES = range(300)
TEXT = (
    "the a of and to in he was that it his her with as had for she on at by which you not be from but have him said "
    "house river morning question letter garden window answer children nothing between water doctor evening"
)
WORDS = TEXT.split()
PHRASES = (
    "Thank you.",
    "Thanks for watching!",
    "I don't know.",
    "and so on, ",
    "the next one is",
    "He said that he had not been there since the morning.",
    "Subtitles by the community, translated by volunteers; ",
    "谢谢观看",
    "1 2 3",
)
SINGLE = ("the", "0", "uh", "a", ".", "!", "é", "嗯", "...", "zwei", "-")
NATURAL = (
    "No, no, no, no, no!",
    "Ha ha ha ha ha ha ha ha ha.",
    "Row, row, row your boat, gently down the stream. Merrily, merrily, merrily, merrily, life is but a dream.",
    "London Bridge is falling down, falling down, falling down, London Bridge is falling down, my fair lady.",
    "Bye bye bye. Bye. Bye-bye.",
    "Tyger Tyger, burning bright, in the forests of the night",
    "Nevermore. Quoth the Raven, nevermore. Nevermore!",
    "We shall fight on the beaches, we shall fight on the landing grounds, we shall fight in the fields and in the "
    "streets, we shall fight in the hills; we shall never surrender.",
    "Water, water, every where, and all the boards did shrink; water, water, every where, nor any drop to drink.",
    "Aaaaaaaaah!",
    "Hmmmmm... Hmmm...",
    "La la la la la la la la la la la la.",
    "USA! USA! USA! USA! USA! USA!",
    "Yeah, yeah, yeah. Yeah, yeah, yeah. She loves you, yeah, yeah, yeah.",
    "A rose is a rose is a rose is a rose.",
    "对对对对对对对",
    "Go go go go go go!",
    "Tick tock, tick tock, tick tock, tick tock, said the clock.",
    "Knock knock. Who's there? Knock knock. Who's there?",
    "------------",
)
REFRAIN = "Glory, glory, hallelujah! His truth is marching on."


def find_loop(text: str, sound_s: float | None = None) -> Loop | None:
    """The first loop that is noticed in `text`, which comes in pieces as those of a tokenizer."""
    watch = LoopWatch(sound_s)
    for piece in re.findall(r"\s?\w{1,5}|\W", text):
        if loop := watch.push(piece):
            return loop
    return None


def sentence(draw: random.Random, fewest: int = 4, most: int = 12) -> str:
    words = [draw.choice(WORDS) for _ in range(draw.randint(fewest, most))]
    return " ".join(words).capitalize() + "."


def planted(number: int) -> tuple[str, str]:
    """(what is said before the loop and once in it, the rest of the loop)."""
    draw = random.Random(number)
    kind = number % 3
    if kind == 0:
        unit = draw.choice(SINGLE)
        unit = unit + " " if unit[-1].isalnum() and unit.isascii() else unit
    elif kind == 1:
        unit = draw.choice(PHRASES)
        unit = unit if unit.endswith(" ") or not unit.isascii() else unit + " "
    else:
        unit = sentence(draw, 2, 9) + " "
    before = " ".join(sentence(draw) for _ in range(draw.randint(0, 4)))
    before = before + " " if before else ""
    times = draw.randint(40, 80) if len(unit) < 6 else draw.randint(12, 40)
    rest = unit * times
    return before + unit, rest[: len(rest) - draw.randint(0, len(unit))]


def natural(number: int) -> str:
    draw = random.Random(1000 + number)
    kind = number % 6
    if kind == 0:
        return " ".join(draw.sample(NATURAL, draw.randint(1, 3)))
    if kind == 1:  # numbers as they are read out: runs of a digit, also a dozen
        return " ".join(digit for run in draw.sample("0123456789", 6) for digit in run * draw.choice([1, 2, 3, 5, 12]))
    if kind == 2:
        first = draw.randint(0, 100)
        return ", ".join(str(count) for count in range(first, first + draw.randint(10, 60), draw.choice([1, 1, 2, 5])))
    if kind == 3:
        verses = [sentence(draw, 12, 20) for _ in range(3)]
        return " ".join(f"{verse} {REFRAIN} {REFRAIN}" for verse in verses)
    if kind == 4:
        word = draw.choice(["no", "very", "well", "wait", "so", "really", "come on", "thank you", "I", "okay"])
        return f"{sentence(draw)} {', '.join([word] * draw.randint(2, 7))}! {sentence(draw)}"
    return " ".join(sentence(draw) for _ in range(draw.randint(1, 12)))


@pytest.mark.parametrize("sound_s", [None, 6.0])
def test_every_planted_loop_is_caught_and_what_was_said_before_is_kept(sound_s: float | None) -> None:
    for number in CASES:
        once, rest = planted(number)
        loop = find_loop(once + rest, sound_s)
        assert loop is not None, once + rest
        kept = (once + rest)[: loop.kept]
        assert kept.rstrip(" .!,;-").startswith(once[: len(once) // 2].rstrip(" .!,;-")), (once, kept)
        assert len(kept) <= len(once) + len(loop.run), (once, kept)


@pytest.mark.parametrize("characters_per_s", [None, 14])
def test_natural_repetition_is_never_taken_for_a_loop(characters_per_s: int | None) -> None:
    for number in CASES:
        text = natural(number)
        sound_s = len(text) / characters_per_s if characters_per_s else None
        assert find_loop(text, sound_s) is None, text


def test_a_loop_is_noticed_while_it_is_written_whatever_the_pieces() -> None:
    for size in (1, 3, 7, 40):
        watch, text = LoopWatch(), "So it is. " + "Thank you. " * 60
        pushed = 0
        for start in range(0, len(text), size):
            pushed = start + size
            if loop := watch.push(text[start:pushed]):
                assert text[: loop.kept] == "So it is. Thank you."
                break
        assert pushed <= 10 + 11 * 10 + size


def test_fewer_times_are_enough_where_nobody_could_say_so_much() -> None:
    text = "and then he said " * 5
    assert find_loop(text, 10.0) is None
    loop = find_loop(text, 1.0)
    assert loop is not None
    assert text[: loop.kept].rstrip() == "and then he said"
