"""Trains the miniature and writes its folder: `python -m assets.training.train --out assets/miniature`."""

from __future__ import annotations

import argparse
import json
import signal
import time
from collections import deque
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import nullcontext
from dataclasses import asdict, dataclass, field
from multiprocessing import get_context
from pathlib import Path

import torch

from assets.training.architecture import build_model
from assets.training.batches import LAST_LEVELS, TASKS, Batch, BatchMaker
from assets.training.corpus import training_texts
from assets.training.export import write_folder
from assets.training.network import answer_logits, exact_rows, four_bit
from assets.training.tokenizer import build_tokenizer

SIZES = {"scenes": 16, "reading": 40, "hearing": 14, "dialogue": 10}
PROMOTE_EXACT = {"scenes": 0.75, "reading": 0.5, "hearing": 0.65, "dialogue": 0.75}
MASTERED_EXACT = 0.97
GRID_LEVELS = 3
AHEAD_STEPS = 3
WARMUP_STEPS = 100
COOL_SHARE = 0.35
FOUR_BIT_SHARE = 0.12
# The input filters start small and well placed: at the full rate Adam would bury them in noise.
SLOW = {"patch_dense.weight": 0.04, "embed_audio.embedding_projection.weight": 0.15}


@dataclass
class Progress:
    """Where the curriculum stands; what a checkpoint keeps beside weights and optimizers."""

    step: int = 0
    levels: dict[str, int] = field(default_factory=lambda: dict.fromkeys(TASKS, 0))
    exact: dict[str, float] = field(default_factory=lambda: dict.fromkeys(TASKS, 0.0))
    since: dict[str, int] = field(default_factory=lambda: dict.fromkeys(TASKS, 0))

    def record(self, task: str, exact: float) -> bool:
        """Takes the share of exact answers in; true when the task has earned its next level."""
        self.exact[task] += 0.04 * (exact - self.exact[task])
        self.since[task] += 1
        ready = self.exact[task] > PROMOTE_EXACT[task] and self.since[task] > 40
        if not ready or self.levels[task] == LAST_LEVELS[task]:
            return False
        self.levels[task] += 1
        self.exact[task], self.since[task] = 0.5 * self.exact[task], 0
        return True

    def plan(self, step: int, budget_tokens: int) -> dict[str, int]:
        """Samples of each task in a step: only pictures in every odd step once text leaves the grid."""
        alone = step % 2 and self.levels["reading"] > GRID_LEVELS
        mastered = {t for t in TASKS if self.levels[t] == LAST_LEVELS[t] and self.exact[t] > MASTERED_EXACT}
        sizes = {task: size // 2 if task in mastered else size for task, size in SIZES.items()}
        sizes = {t: sizes[t] for t in ("scenes", "reading")} if alone else sizes
        return {task: max(2, size * 70 // budget_tokens) for task, size in sizes.items()}


_maker: BatchMaker | None = None


def _start_worker(work: Path, seed: int) -> None:
    global _maker
    _maker = BatchMaker(build_tokenizer(training_texts()), work, seed)


def _make(step: int, levels: dict[str, int], sizes: dict[str, int], budget_tokens: int) -> dict[str, Batch]:
    assert _maker is not None
    return {task: _maker.batch(task, levels[task], step, sizes[task], budget_tokens) for task in sizes}


class Trainer:
    """Model, optimizers and curriculum of one run, saved to and resumed from `work`."""

    def __init__(self, work: Path, seed: int, steps: int, rate: float) -> None:
        """Resumes where `work` holds a checkpoint."""
        self.work, self.seed, self.steps, self.rate = work, seed, steps, rate
        self.tokenizer = build_tokenizer(training_texts())
        self.model = build_model(self.tokenizer.get_vocab_size(), seed)
        self.model.model.embed_vision.patch_ln1.requires_grad_(False)
        self.progress = Progress()
        self.optimizers = self._optimizers()
        if self.checkpoint.exists():
            state = torch.load(self.checkpoint, weights_only=True)
            self.model.load_state_dict(state["model"])
            for optimizer, kept in zip(self.optimizers, state["optimizers"], strict=True):
                optimizer.load_state_dict(kept)
            self.progress = Progress(**state["progress"])

    @property
    def checkpoint(self) -> Path:
        """The file that a restart continues from."""
        return self.work / "checkpoint.pt"

    def _optimizers(self) -> list[torch.optim.Optimizer]:
        """Muon for the matrices of the decoder, AdamW for everything else."""
        parameters = {n: p for n, p in self.model.named_parameters() if p.requires_grad}
        matrices = [n for n, p in parameters.items() if ".layers." in n and p.ndim == 2]
        slow = {name: scale for name in parameters for end, scale in SLOW.items() if name.endswith(end)}
        rest = [n for n in parameters if n not in matrices and n not in slow]
        groups = [{"params": [parameters[n] for n in rest], "scale": 1.0}]
        groups += [{"params": [parameters[n]], "scale": scale} for n, scale in slow.items()]
        return [
            torch.optim.Muon(
                [{"params": [parameters[n] for n in matrices], "scale": 1.0}],
                lr=self.rate,
                weight_decay=0.02,
                adjust_lr_fn="match_rms_adamw",
            ),
            torch.optim.AdamW(groups, lr=self.rate, betas=(0.9, 0.98), weight_decay=0.0),
        ]

    def save(self) -> None:
        """Writes the checkpoint beside the old one and takes its place."""
        partial = self.checkpoint.with_suffix(".partial")
        state = {
            "model": self.model.state_dict(),
            "optimizers": [o.state_dict() for o in self.optimizers],
            "progress": asdict(self.progress),
        }
        torch.save(state, partial)
        partial.replace(self.checkpoint)

    def step(self, batches: dict[str, Batch]) -> dict[str, dict[str, float]]:
        """One update from a small batch of each task; the loss is over answer tokens only."""
        step = self.progress.step
        remaining = (self.steps - step) / (COOL_SHARE * self.steps)
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = group["scale"] * self.rate * min(1.0, (step + 1) / WARMUP_STEPS, max(0.01, remaining))
        low_bit = step > (1 - FOUR_BIT_SHARE) * self.steps and step % 2 == 0
        report = {}
        with four_bit(self.model) if low_bit else nullcontext():
            for task, batch in batches.items():
                with torch.autocast("cpu", torch.bfloat16):
                    predicted = answer_logits(self.model, batch)
                loss = torch.nn.functional.cross_entropy(predicted, torch.from_numpy(batch.targets))
                loss.backward()  # type: ignore[no-untyped-call]
                exact = float(exact_rows(batch, predicted).mean())
                report[task] = {"loss": float(loss.detach()), "exact": exact}
        torch.nn.utils.clip_grad_norm_([p for p in self.model.parameters() if p.requires_grad], 4.0)
        for optimizer in self.optimizers:
            optimizer.step()
            optimizer.zero_grad()
        for task, row in report.items():
            if self.progress.record(task, row["exact"]):
                print(f"step {step}: {task} -> level {self.progress.levels[task]}", flush=True)
        self.progress.step += 1
        return report

    def run(self, save_every: int = 100, log_every: int = 9) -> None:
        """Trains to the last step, with batches made by a second process a few steps ahead."""
        log = (self.work / "log.jsonl").open("a")
        pending: deque[Future[dict[str, Batch]]] = deque()
        asked = self.progress.step
        started, context = time.time(), get_context("spawn")
        with ProcessPoolExecutor(1, context, _start_worker, (self.work, self.seed)) as pool:
            while self.progress.step < self.steps:
                while asked < min(self.steps, self.progress.step + AHEAD_STEPS):
                    budget = self._budget(asked)
                    sizes = self.progress.plan(asked, budget)
                    pending.append(pool.submit(_make, asked, dict(self.progress.levels), sizes, budget))
                    asked += 1
                report = self.step(pending.popleft().result())
                if self.progress.step % log_every == 0:
                    row = {"step": self.progress.step, "seconds": round(time.time() - started, 1), **report}
                    log.write(json.dumps({**row, "ema": self.progress.exact, "levels": self.progress.levels}) + "\n")
                    log.flush()
                if self.progress.step % save_every == 0:
                    self.save()
        self.save()

    def _budget(self, step: int) -> int:
        """Soft tokens to a picture: 70, and in the last fifth every sixteenth step 140 or 280."""
        if step < 4 * self.steps // 5 or step % 16:
            return 70
        return 140 if step % 32 else 280


def _stop(number: int, _frame: object) -> None:
    raise SystemExit(128 + number)


def main() -> None:
    """Command line."""
    signal.signal(signal.SIGTERM, _stop)  # leaves through the pool, so that its worker ends too
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("assets/miniature"))
    parser.add_argument("--work", type=Path, default=Path("build/miniature"))
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--steps", type=int, default=6000)
    parser.add_argument("--rate", type=float, default=2e-3)
    arguments = parser.parse_args()
    arguments.work.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(2)
    trainer = Trainer(arguments.work, arguments.seed, arguments.steps, arguments.rate)
    trainer.run()
    write_folder(trainer.model, trainer.tokenizer, arguments.out)


if __name__ == "__main__":
    main()
