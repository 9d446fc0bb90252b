"""Trains the miniature's drafter: `python -m assets.training.train_drafter`.

It learns to continue the miniature's own greedy answers. Each position of an answer is the start of a round of UNROLL
drafts: the first from the miniature's last hidden state, each further one from what `post_projection` made of the one
before, all of them at one position and over the keys and values that the miniature had by then. The loss is the cross
entropy with the miniature's own distribution. The miniature runs over the prompts once, before.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from assets.training.assistant import build_drafter, let_transformers_share, write_drafter
from assets.training.batches import LAST_LEVELS, BatchMaker
from assets.training.continuations import Continuation, Shared, greedy_continuations
from assets.training.evaluate import load
from assets.training.network import logits

UNROLL = 4
PROMPTS = {"scenes": 960, "reading": 2560, "hearing": 1280, "dialogue": 1600}
AT_ONCE = 32
FIRST_STEP = 1_000_000
"""The prompts are those that the miniature's training would have had from this step on, which it never reached."""
BATCH_ANSWERS = 48
WARMUP_STEPS = 50


@dataclass(frozen=True)
class Rounds:
    """Rounds of drafts from answers padded to one length, one round from each position."""

    ids: torch.Tensor  # [B, T + UNROLL] answer tokens, padded
    hidden: torch.Tensor  # [B, T + UNROLL, D] row i is the state that predicts ids[:, i]
    shared: Shared  # [B, K, S, Dh]
    starts: torch.Tensor  # [B] position of ids[:, 0]
    lengths: torch.Tensor  # [B] how many of ids are the answer's

    @property
    def positions(self) -> torch.Tensor:
        """[B, T] the position of the token that each round begins with."""
        return self.starts[:, None] + torch.arange(self.ids.shape[1] - UNROLL)

    def masks(self, window: int) -> dict[str, torch.Tensor]:
        """[B, 1, T, S] the rows before each round's token; a sliding layer sees the last W + 1 of them."""
        first = next(iter(self.shared.values()))[0]
        rows, positions = torch.arange(first.shape[2]), self.positions[..., None]
        before = rows < positions
        near = rows >= positions - window - 1
        return {"full_attention": before[:, None], "sliding_attention": (before & near)[:, None]}


def rounds_of(answers: list[Continuation]) -> Rounds:
    """`answers` side by side."""
    longest = max(len(answer.answer) for answer in answers) + UNROLL

    def padded(rows: list[torch.Tensor]) -> torch.Tensor:
        out = torch.zeros(len(rows), longest, *rows[0].shape[1:], dtype=rows[0].dtype)
        for target, row in zip(out, rows, strict=True):
            target[: len(row)] = row
        return out

    width = -(-max(answer.stop for answer in answers) // 16) * 16
    shared = {}
    for kind in answers[0].shared:
        pair = []
        for part in (0, 1):
            heads, _, dims = answers[0].shared[kind][part].shape
            out = torch.zeros(len(answers), heads, width, dims)
            for target, answer in zip(out, answers, strict=True):
                target[:, : answer.stop] = answer.shared[kind][part]
            pair.append(out)
        shared[kind] = (pair[0], pair[1])
    return Rounds(
        ids=padded([answer.answer for answer in answers]),
        hidden=padded([answer.hidden for answer in answers]),
        shared=shared,
        starts=torch.tensor([answer.start for answer in answers]),
        lengths=torch.tensor([len(answer.answer) for answer in answers]),
    )


def draft_step(
    drafter: Any, model: Any, rounds: Rounds, ids: torch.Tensor, hidden: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Tokens [B, T] and states [B, T, D] -> logits [B, T, V] and next states: `forward` with many rounds at once."""
    with torch.no_grad():
        embeddings = model.get_input_embeddings()(ids)
    inputs = drafter.pre_projection(torch.cat([embeddings, hidden], dim=-1))
    output = drafter.model(
        inputs_embeds=inputs,
        attention_mask=rounds.masks(drafter.config.text_config.sliding_window),
        position_ids=rounds.positions,
        shared_kv_states=rounds.shared,
        use_cache=False,
    )
    states = output.last_hidden_state
    return drafter.lm_head(states), drafter.post_projection(states)


def loss_of(drafter: Any, model: Any, rounds: Rounds) -> tuple[torch.Tensor, list[float]]:
    """The mean loss over all drafts, and at each depth the share of them that hit the miniature's token."""
    count = rounds.ids.shape[1] - UNROLL
    hidden = rounds.hidden[:, :count]
    losses, hits = [], []
    for depth in range(1, UNROLL + 1):
        ids = rounds.ids[:, depth - 1 : depth - 1 + count]
        predicted, hidden = draft_step(drafter, model, rounds, ids, hidden)
        real = torch.arange(count)[None, :] + depth < rounds.lengths[:, None]
        with torch.no_grad():
            wanted = logits(model, rounds.hidden[:, depth : depth + count][real]).softmax(-1)
        chosen = predicted[real]
        losses.append(torch.nn.functional.cross_entropy(chosen, wanted, reduction="sum") / max(1, len(chosen)))
        labels = rounds.ids[:, depth : depth + count][real]
        hits.append(float((chosen.argmax(-1) == labels).float().mean()))
    return torch.stack(losses).mean(), hits


def batches(answers: list[Continuation], rng: np.random.Generator) -> Iterator[list[Continuation]]:
    """Endless batches of answers that are about as long."""
    while True:
        order = rng.permutation(len(answers))
        blocks = []
        for part in np.array_split(order, max(1, len(order) // (8 * BATCH_ANSWERS))):
            by_length = sorted(part, key=lambda i: len(answers[i].answer))
            blocks += [by_length[i : i + BATCH_ANSWERS] for i in range(0, len(by_length), BATCH_ANSWERS)]
        for index in rng.permutation(len(blocks)):
            yield [answers[i] for i in blocks[index]]


def collect(model: Any, maker: BatchMaker, stored: Path) -> list[Continuation]:
    """The answers to learn from; made once and kept in `stored`."""
    if stored.exists():
        rows = torch.load(stored, weights_only=True)
        return [Continuation(**row) for row in rows]
    answers = []
    for task, count in PROMPTS.items():
        for step in range(count // AT_ONCE):
            samples = maker.samples(task, LAST_LEVELS[task], FIRST_STEP + step, AT_ONCE)
            answers += greedy_continuations(model, maker, samples, passes=1)
        print(f"{task}: {count} prompts", flush=True)
    answers = [answer for answer in answers if len(answer.answer) > 1]
    torch.save([vars(answer) for answer in answers], stored)
    return answers


def optimizers_of(drafter: Any, rate: float) -> list[torch.optim.Optimizer]:
    """Muon for the matrices of the layers, AdamW for everything else."""
    parameters = dict(drafter.named_parameters())
    matrices = [p for n, p in parameters.items() if p.ndim == 2 and ".layers." in n]
    rest = [p for n, p in parameters.items() if not (p.ndim == 2 and ".layers." in n)]
    return [
        torch.optim.Muon(matrices, lr=rate, weight_decay=0.02, adjust_lr_fn="match_rms_adamw"),
        torch.optim.AdamW(rest, lr=rate, betas=(0.9, 0.98), weight_decay=0.0),
    ]


def train(drafter: Any, model: Any, answers: list[Continuation], steps: int, rate: float, seed: int) -> None:
    """`steps` updates, with a short warm-up and a linear decay."""
    optimizers, started = optimizers_of(drafter, rate), time.time()
    feed = batches(answers, np.random.default_rng((seed, 5)))
    for step in range(steps):
        for optimizer in optimizers:
            for group in optimizer.param_groups:
                group["lr"] = rate * min(1.0, (step + 1) / WARMUP_STEPS, (steps - step) / (0.7 * steps))
        loss, hits = loss_of(drafter, model, rounds_of(next(feed)))
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(drafter.parameters(), 4.0)
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad()
        if step % 20 == 19:
            row = {"step": step + 1, "seconds": round(time.time() - started), "loss": round(float(loss.detach()), 4)}
            print(json.dumps(row | {"hits": [round(hit, 3) for hit in hits]}), flush=True)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, default=Path("assets/miniature"))
    parser.add_argument("--out", type=Path, default=Path("assets/miniature/drafter"))
    parser.add_argument("--work", type=Path, default=Path("build/miniature"))
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--steps", type=int, default=1600)
    parser.add_argument("--rate", type=float, default=3e-3)
    arguments = parser.parse_args()
    arguments.work.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    let_transformers_share()
    model, tokenizer = load(arguments.model)
    model.requires_grad_(False)
    maker = BatchMaker(tokenizer, arguments.work, arguments.seed)
    answers = collect(model, maker, arguments.work / f"continuations-{arguments.seed}.pt")
    drafter = build_drafter(tokenizer.get_vocab_size(), arguments.seed)
    train(drafter, model, answers, arguments.steps, arguments.rate, arguments.seed)
    write_drafter(drafter, arguments.out)


if __name__ == "__main__":
    main()
