"""Prompts with answers to measure sensitivity on: those that come with the program, as samples for the model."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from convert.sensitivity import Sample
from gemma_mlx.errors import GemmaError
from gemma_mlx.home import samples_folder
from gemma_mlx.inputs.prompt import PromptBuilder
from gemma_mlx.tasks.captioning import PROMPT as CAPTION_PROMPT
from gemma_mlx.tasks.captioning import READ_PROMPT
from gemma_mlx.tasks.message import user_message
from gemma_mlx.tasks.transcription import transcription_prompt

_TEXTS = (
    (
        "Explain to a curious child why there are tides.",
        "The Moon is far away, but it is so big that it pulls on the whole Earth, and on the sea most of all. On the "
        "side that faces the Moon the water is pulled up into a gentle hill, and there is another hill on the far "
        "side. As the Earth turns, your beach passes through both hills: that is why the sea comes up and goes down "
        "about twice a day.",
    ),
    (
        "Write a Python function that merges two sorted lists.",
        "```python\ndef merge(a: list[int], b: list[int]) -> list[int]:\n    merged, i, j = [], 0, 0\n"
        "    while i < len(a) and j < len(b):\n        if a[i] <= b[j]:\n            merged.append(a[i])\n"
        "            i += 1\n        else:\n            merged.append(b[j])\n            j += 1\n"
        "    return merged + a[i:] + b[j:]\n```",
    ),
    (
        "List three capitals of Europe as a JSON array of objects with city and country.",
        '[\n  {"city": "Paris", "country": "France"},\n  {"city": "Rome", "country": "Italy"},\n'
        '  {"city": "Vienna", "country": "Austria"}\n]',
    ),
    (
        "Übersetze ins Englische: Der Zug fährt heute eine halbe Stunde später ab.",
        "The train is leaving half an hour later today.",
    ),
    ("A shirt costs 40 euros and is reduced by 15 percent. What does it cost?", "15 % of 40 euros are 6 euros, so it "
     "costs 40 - 6 = **34 euros**."),
)  # fmt: skip
_MINIATURE_TEXTS = (
    (
        "What can you do?",
        "I can describe simple pictures, read short text, write down spoken digits and do small sums.",
    ),
    ("Which colours do you know?", "I know red, green, blue, yellow, purple and orange."),
    ("What is 2 + 3?", "2 + 3 = 5"),
    ("My name is Rosa.", "Nice to meet you, Rosa."),
    ("Tell me a joke.", "Why was the circle so happy? It had no corners to sit in."),
)
"""It knows no prose, no code and no JSON."""


@dataclass(frozen=True)
class Exchange:
    """What the model is asked, as chat APIs take it, and what it answers."""

    messages: Sequence[Mapping[str, Any]]
    answer: str
    """"" where none is given."""
    where: str = "a default prompt"
    """For a person: where it stands."""


def default_exchanges(*, miniature: bool) -> list[Exchange]:
    """Texts, sample pictures, of shapes and of text, and sample sounds. For Gemma 4 12B they are fewer: a picture has
    280 tokens there, and each token costs 4 TFLOP (`sensitivity.py`)."""
    folder = samples_folder()
    numbers = (0, 1) if miniature else (0,)
    expected = {
        sample["file"]: sample["expected"]
        for sample in json.loads((folder / "samples.json").read_text(encoding="utf-8"))["samples"]
    }
    texts = [Exchange([user_message(text)], answer) for text, answer in (_MINIATURE_TEXTS if miniature else _TEXTS)]
    pictures = [
        Exchange([user_message(CAPTION_PROMPT, [folder / name])], expected[name])
        for name in (f"scene-{number:02}.png" for number in numbers)
    ]
    readings = [
        Exchange([user_message(READ_PROMPT, [folder / name])], expected[name])
        for name in (f"text-{number:02}.png" for number in numbers)
    ]
    sounds = [
        Exchange([user_message(transcription_prompt(), sounds=[folder / name])], expected[name])
        for name in (f"speech-{number:02}.flac" for number in numbers)
    ]
    return [*texts, *pictures, *readings, *sounds]


def samples_of(folder: Path, exchanges: Sequence[Exchange]) -> list[Sample]:
    """`exchanges` as the model in `folder` takes them. GemmaError that names the one that cannot be used."""
    prompts = PromptBuilder.from_folder(folder)
    tokenizer = prompts.tokenizer
    samples = []
    for exchange in exchanges:
        try:
            prompt = prompts.build(exchange.messages)
        except GemmaError as error:
            raise type(error)(f"{exchange.where}: {error}") from None
        answer_ids = tokenizer.encode(tokenizer.guard(exchange.answer))
        samples.append(Sample(prompt, (*answer_ids, tokenizer.special.turn_close) if exchange.answer else ()))
    return samples
