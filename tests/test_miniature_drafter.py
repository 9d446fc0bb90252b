"""The miniature's own drafter, through our code: how often it is right, and what it costs to pack it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mlx.core as mx
import pytest

from convert.conversion import convert_checkpoint
from gemma_mlx import Gemma
from gemma_mlx.decoding.prefill import forward_chunk
from gemma_mlx.drafter_weights import load_drafter
from gemma_mlx.home import find_drafter, miniature_folder
from gemma_mlx.model.decoder import Cache
from gemma_mlx.model.drafter import Drafter
from gemma_mlx.soft_tokens import soft_tokens
from gemma_mlx.tasks.captioning import PROMPT as CAPTION_PROMPT
from gemma_mlx.tasks.message import user_message
from gemma_mlx.tasks.transcription import transcription_prompt

SAMPLES = Path(__file__).parents[1] / "assets" / "samples"
DEPTH = 3


@dataclass
class Rounds:
    """What drafting did over some prompts."""

    drafted: int = 0
    accepted: int = 0
    tokens: int = 0
    passes: int = 0

    @property
    def acceptance(self) -> float:
        return self.accepted / self.drafted


def drafts(drafter: Drafter, last_id: int, hidden: mx.array, caches: list[Cache]) -> list[int]:
    ids, found = mx.array([[last_id]]), []
    for _ in range(DEPTH):
        logits, hidden = drafter.step(ids, hidden, caches)
        ids = mx.argmax(logits, axis=-1)[:, None]
        found.append(ids)
    drafted: list[int] = mx.concatenate(found)[:, 0].tolist()
    return drafted


def answer(gemma: Gemma, drafter: Drafter, messages: list[dict[str, Any]], rounds: Rounds) -> list[int]:
    """A greedy answer in rounds of DEPTH drafts, counted in `rounds`."""
    model, prompt, caches = gemma.model, gemma.prompts.build(gemma.prepare(messages)), gemma.model.make_caches()
    hidden = forward_chunk(model, caches, prompt.ids, soft_tokens(gemma.model, prompt.spans), len(prompt))[:, -1:]
    said = [int(mx.argmax(model.logits(hidden)).item())]
    rounds.passes += 1
    while not gemma.stop_ids & set(said):
        drafted = drafts(drafter, said[-1], hidden, caches)
        rows = model(model.embed([said[-1], *drafted], []), caches)
        wanted = mx.argmax(model.logits(rows), axis=-1)[0].tolist()
        good = next((i for i, token in enumerate(drafted) if token != wanted[i]), DEPTH)
        said += wanted[: good + 1]
        for cache in caches:
            cache.rewind(DEPTH - good)
        hidden = rows[:, good : good + 1]
        rounds.drafted, rounds.accepted, rounds.passes = (
            rounds.drafted + DEPTH,
            rounds.accepted + good,
            rounds.passes + 1,
        )
    stop = next(index for index, token in enumerate(said) if token in gemma.stop_ids)
    rounds.tokens += stop + 1
    return said[:stop]


def prompts(kind: str) -> list[list[dict[str, Any]]]:
    samples = json.loads((SAMPLES / "samples.json").read_text())["samples"]
    files = [SAMPLES / sample["file"] for sample in samples if sample["task"] == kind][:4]
    if kind == "caption":
        return [[user_message(CAPTION_PROMPT, images=[file])] for file in files]
    return [[user_message(transcription_prompt(), sounds=[file])] for file in files]


def load(gemma: Gemma, folder: Path | None) -> Drafter:
    assert folder is not None
    return load_drafter(folder, gemma.folder, gemma.config, gemma.model)


@pytest.mark.parametrize("kind", ["caption", "transcribe"])
def test_most_drafts_are_accepted_and_answers_stay_what_they_are(miniature: Gemma, kind: str) -> None:
    drafter, rounds = load(miniature, find_drafter(miniature_folder())), Rounds()
    for messages in prompts(kind):
        plain = miniature.reply(messages, sampling=miniature.sampling(temperature=0.0))
        assert answer(miniature, drafter, messages, rounds) == [t for t in plain.tokens if t not in miniature.stop_ids]
    assert rounds.acceptance > 0.8
    assert rounds.tokens > 2 * rounds.passes


def test_packed_to_4_bit_it_still_drafts(miniature: Gemma, tmp_path: Path) -> None:
    whole, packed = Rounds(), Rounds()
    convert_checkpoint(miniature_folder() / "drafter", tmp_path / "drafter", "4bit")
    for folder, rounds in ((find_drafter(miniature_folder()), whole), (find_drafter(tmp_path), packed)):
        for messages in prompts("caption"):
            answer(miniature, load(miniature, folder), messages, rounds)
    assert packed.tokens == whole.tokens
    assert packed.acceptance > whole.acceptance - 0.15


@pytest.mark.parametrize("kind", ["caption", "reading", "transcript", "dialogue", "thinking"])
def test_scores_beside_the_weights_are_those_that_were_promised(kind: str) -> None:
    scores = json.loads((miniature_folder() / "drafter" / "scores.json").read_text())
    assert scores[kind]["answers"] >= 100
    assert scores[kind]["depth_3"]["acceptance"] > 0.6
    assert kind != "caption" or scores[kind]["depth_3"]["tokens_per_pass"] > 2
