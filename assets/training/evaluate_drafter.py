"""Acceptance of a drafter on held-out prompts: `python -m assets.training.evaluate_drafter`.

For each kind of prompt and each depth: of all tokens drafted while the miniature's greedy answer is produced in rounds
of that depth, the share that is accepted (a draft is accepted if it and all before it in its round are what the
miniature says), and how many tokens a pass of the miniature yields. Runs in float32 with transformers.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import Gemma4UnifiedAssistantForCausalLM

from assets.training.assistant import let_transformers_share
from assets.training.batches import BatchMaker
from assets.training.continuations import Continuation, greedy_continuations
from assets.training.evaluate import load
from assets.training.held_out import HELD_OUT_SEED, Case, dialogue_case, scene_case, speech_case, text_case
from assets.training.speech import VOICES
from assets.training.train_drafter import UNROLL, draft_step, rounds_of

KINDS: dict[str, tuple[int, Case]] = {
    "caption": (11, scene_case),
    "reading": (12, text_case),
    "transcript": (13, lambda rng: speech_case(rng, VOICES)),
    "dialogue": (15, lambda rng: dialogue_case(rng, False)),
    "thinking": (16, lambda rng: dialogue_case(rng, True)),
}
"""Each kind's salt and cases; with other salts than in `evaluate`, so also other cases than the miniature's scores."""
PASSES = 24


@torch.no_grad()
def hits_of(drafter: Any, model: Any, answers: list[Continuation]) -> list[np.ndarray]:
    """For each answer, [T, UNROLL]: whether a round begun at each of its tokens hits at each depth.

    Drafts are fed back as they are; what comes after a wrong one is not used by `accepted`.
    """
    rounds = rounds_of(answers)
    count = rounds.ids.shape[1] - UNROLL
    ids, hidden, hits = rounds.ids[:, :count], rounds.hidden[:, :count], []
    for depth in range(1, UNROLL + 1):
        predicted, hidden = draft_step(drafter, model, rounds, ids, hidden)
        ids = predicted.argmax(-1)
        hits.append((ids == rounds.ids[:, depth : depth + count]).numpy())
    table = np.stack(hits, axis=-1)  # [B, T, UNROLL]
    return [rows[: len(answer.answer)] for rows, answer in zip(table, answers, strict=True)]


def accepted(hits: np.ndarray, depth: int) -> tuple[int, int, int]:
    """(drafted, accepted, passes of the model) for one answer in rounds of `depth`; nothing is drafted past its end."""
    drafted = kept = 0
    passes = 1  # the prompt's own, which gives the first token
    at, last = 0, len(hits) - 1
    while at < last:
        tried = min(depth, last - at)
        run = hits[at, :tried]
        good = tried if run.all() else int(np.argmin(run))
        drafted, kept, passes = drafted + tried, kept + good, passes + 1
        at += good + 1
    return drafted, kept, passes


def score(drafter: Any, model: Any, maker: BatchMaker, cases: int) -> dict[str, Any]:
    """Acceptance by kind, with the number of tokens and passes behind it."""
    scores: dict[str, Any] = {}
    for kind, (salt, case) in KINDS.items():
        table: list[np.ndarray] = []
        for start in range(0, cases, 32):
            numbers = range(start, min(cases, start + 32))
            samples = [case(np.random.default_rng((HELD_OUT_SEED, salt, i))) for i in numbers]
            table += hits_of(drafter, model, greedy_continuations(model, maker, samples, PASSES))
        tokens = sum(len(hits) for hits in table)
        row: dict[str, Any] = {"answers": len(table), "tokens": tokens}
        for depth in range(1, UNROLL + 1):
            drafted, kept, passes = (
                sum(column) for column in zip(*(accepted(hits, depth) for hits in table), strict=True)
            )
            row[f"depth_{depth}"] = {
                "acceptance": round(kept / drafted, 4),
                "tokens_per_pass": round(tokens / passes, 3),
            }
        scores[kind] = row
        print(kind, json.dumps(row), flush=True)
    return scores


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, default=Path("assets/miniature"))
    parser.add_argument("--drafter", type=Path, default=Path("assets/miniature/drafter"))
    parser.add_argument("--work", type=Path, default=Path("build/miniature"))
    parser.add_argument("--cases", type=int, default=128)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    let_transformers_share()
    model, tokenizer = load(arguments.model)
    drafter = Gemma4UnifiedAssistantForCausalLM.from_pretrained(arguments.drafter, dtype=torch.float32)
    maker = BatchMaker(tokenizer, arguments.work, seed=1)
    scores = {"cases": arguments.cases, "held_out_seed": HELD_OUT_SEED, **score(drafter, model, maker, arguments.cases)}
    (arguments.drafter / "scores.json").write_text(json.dumps(scores, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
