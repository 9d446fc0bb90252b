"""Scores of a written checkpoint on held-out data: `python -m assets.training.evaluate --model assets/miniature`.

Loads the folder with transformers in bfloat16-rounded float32 weights and decodes greedily, once as stored and once
with text linears and embedding rounded to 4 bits.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tokenizers import Tokenizer
from transformers import Gemma4UnifiedForConditionalGeneration

from assets.training.batches import Batch, BatchMaker
from assets.training.held_out import (
    HELD_OUT_SEED,
    Case,
    dialogue_case,
    held_out_case,
    scene_case,
    speech_case,
    text_case,
)
from assets.training.network import answer_logits, exact_rows, four_bit, hidden_states, logits
from assets.training.sample import Sample
from assets.training.speech import UNSEEN_VOICES, VOICES
from assets.training.tokenizer import SPECIAL_IDS

STOPS = tuple(SPECIAL_IDS[t] for t in ("<eos>", "<turn|>", "<|tool_response>"))


def load(folder: Path) -> tuple[Any, Tokenizer]:
    """The model as transformers reads it (weights as stored, computed in float32) and its tokenizer."""
    model = Gemma4UnifiedForConditionalGeneration.from_pretrained(folder, dtype=torch.float32)
    model.train(False)
    return model, Tokenizer.from_file(str(folder / "tokenizer.json"))


def greedy(model: Any, maker: BatchMaker, samples: list[Sample], budget_tokens: int, limit: int = 90) -> list[str]:
    """The answers that greedy decoding gives, without the end of turn."""
    batch = maker.collate([replace(s, answer="") for s in samples], budget_tokens)
    lengths = [int(batch.answer_columns[batch.answer_rows == i].min()) + 1 for i in range(len(samples))]
    ids = np.zeros((len(samples), max(lengths) + limit), np.int64)
    blocks = np.full_like(ids, -1)
    for i, length in enumerate(lengths):
        ids[i, :length], blocks[i, :length] = batch.ids[i, :length], batch.blocks[i, :length]
    done = np.zeros(len(samples), bool)
    rows, ends = np.arange(len(samples)), np.array(lengths)
    starts = ends.copy()
    while not done.all() and (ends - starts).max() < limit:
        width = -(-int(ends.max()) // 16) * 16
        part = replace(batch, ids=ids[:, :width], blocks=blocks[:, :width])
        best = _next_tokens(model, part, ends)
        ids[rows, ends] = np.where(done, 0, best)
        done |= np.isin(best, STOPS)
        ends = ends + ~done
    return [
        maker.tokenizer.decode(list(ids[i, a:b]), skip_special_tokens=False)
        for i, (a, b) in enumerate(zip(starts, ends, strict=True))
    ]


@torch.no_grad()
def _next_tokens(model: Any, batch: Batch, ends: np.ndarray) -> np.ndarray:
    with torch.autocast("cpu", torch.bfloat16):
        states = hidden_states(model, batch)
    chosen = states[torch.arange(len(ends)), torch.from_numpy(ends - 1)].float()
    return np.asarray(logits(model, chosen).argmax(-1).numpy())


@torch.no_grad()
def exact_answers(model: Any, maker: BatchMaker, samples: list[Sample], budget_tokens: int) -> np.ndarray:
    """Whether greedy decoding gives each sample's answer: it does where every token of it is the most likely one."""
    batch = maker.collate(samples, budget_tokens)
    with torch.autocast("cpu", torch.bfloat16):
        predicted = answer_logits(model, batch)
    return exact_rows(batch, predicted)


def edits(a: list[str], b: list[str]) -> int:
    """Levenshtein distance."""
    row = list(range(len(b) + 1))
    for i, x in enumerate(a, 1):
        previous, row[0] = row[0], i
        for j, y in enumerate(b, 1):
            previous, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, previous + (x != y))
    return row[-1]


def score(model: Any, maker: BatchMaker, cases: int) -> dict[str, Any]:
    """All scores, in percent, each over `cases` samples (a quarter of them at a budget of 280 soft tokens)."""

    def batches(salt: int, case: Case, count: int) -> Iterator[list[Sample]]:
        for start in range(0, count, 32):
            numbers = range(start, min(count, start + 32))
            yield [held_out_case(salt, case, number) for number in numbers]

    def exact(salt: int, case: Case, budget: int = 70) -> float:
        count = cases if budget == 70 else cases // 4
        rows = [exact_answers(model, maker, samples, budget) for samples in batches(salt, case, count)]
        return round(100 * float(np.concatenate(rows).mean()), 2)

    def error_rate(salt: int, case: Case, split: Callable[[str], list[str]], budget: int = 70) -> float:
        count = cases if budget == 70 else cases // 4
        wrong = units = 0
        for samples in batches(salt, case, count):
            for sample, answer in zip(samples, greedy(model, maker, samples, budget), strict=True):
                wrong += edits(split(sample.answer), split(answer))
                units += len(split(sample.answer))
        return round(100 * wrong / units, 2)

    return {
        "caption_exact": exact(1, scene_case),
        "caption_exact_budget_280": exact(1, scene_case, 280),
        "read_character_error_rate": error_rate(2, text_case, list),
        "read_character_error_rate_budget_280": error_rate(2, text_case, list, 280),
        "read_exact": exact(2, text_case),
        "speech_word_error_rate": error_rate(3, lambda rng: speech_case(rng, VOICES), str.split),
        "speech_word_error_rate_unseen_voices": error_rate(4, lambda rng: speech_case(rng, UNSEEN_VOICES), str.split),
        "dialogue_exact": exact(5, lambda rng: dialogue_case(rng, False)),
        "thinking_exact": exact(6, lambda rng: dialogue_case(rng, True)),
    }


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, default=Path("assets/miniature"))
    parser.add_argument("--work", type=Path, default=Path("build/miniature"))
    parser.add_argument("--cases", type=int, default=256)
    arguments = parser.parse_args()
    torch.set_num_threads(2)
    model, tokenizer = load(arguments.model)
    maker = BatchMaker(tokenizer, arguments.work, seed=1)
    scores: dict[str, Any] = {"cases": arguments.cases, "held_out_seed": HELD_OUT_SEED}
    for name, bits in (("bf16", nullcontext()), ("4bit_simulated", four_bit(model))):
        with bits:
            scores[name] = score(model, maker, arguments.cases)
        print(name, json.dumps(scores[name], indent=2), flush=True)
    (arguments.model / "scores.json").write_text(json.dumps(scores, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
