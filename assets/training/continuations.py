"""What a drafter learns from: the miniature's own answers, with the states that it shares when it gives them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from assets.training.batches import Batch, BatchMaker
from assets.training.evaluate import STOPS
from assets.training.network import logits, model_inputs
from assets.training.sample import Sample

Shared = dict[str, tuple[torch.Tensor, torch.Tensor]]


@dataclass(frozen=True)
class Continuation:
    """A prompt's positions `0:start` and the miniature's greedy answer to it, positions `start:stop`."""

    answer: torch.Tensor
    """Ids [stop - start]."""
    hidden: torch.Tensor
    """[stop - start, D] after the last norm, of the positions from `start - 1` on: row i predicts `answer[i]`."""
    shared: Shared
    """By layer type, keys and values [K, stop, Dh] of the miniature's last layer of that type."""
    start: int

    @property
    def stop(self) -> int:
        return self.start + len(self.answer)


@torch.no_grad()
def greedy_continuations(model: Any, maker: BatchMaker, samples: list[Sample], passes: int) -> list[Continuation]:
    """The miniature's greedy answers, no longer than the samples' own.

    Not token by token: each pass puts what was predicted in the place of what was expected, until nothing changes.
    After `passes` an answer ends at the first token that would still change, so that all tokens are the miniature's.
    """
    batch = maker.collate(samples)
    for _ in range(passes - 1):
        predicted = _predicted(model, batch, _forward(model, batch)[0])
        ids = batch.ids.copy()
        ids[batch.answer_rows, batch.answer_columns + 1] = predicted
        if (ids == batch.ids).all():
            break
        batch = replace(batch, ids=ids)
    hidden, shared = _forward(model, batch)
    predicted = _predicted(model, batch, hidden)
    return [_cut(batch, row, predicted[batch.answer_rows == row], hidden, shared) for row in range(len(samples))]


def _forward(model: Any, batch: Batch) -> tuple[torch.Tensor, Shared]:
    """Hidden states [B, L, D] after the last norm, and the shared keys and values."""
    output = model.model(**model_inputs(batch), return_shared_kv_states=True)
    return output.last_hidden_state, dict(output.shared_kv_states)


def _predicted(model: Any, batch: Batch, hidden: torch.Tensor) -> np.ndarray:
    chosen = hidden[torch.from_numpy(batch.answer_rows), torch.from_numpy(batch.answer_columns)]
    return np.asarray(logits(model, chosen).argmax(-1).numpy())


def _cut(batch: Batch, row: int, predicted: np.ndarray, hidden: torch.Tensor, shared: Shared) -> Continuation:
    """One answer up to its end of turn, or to where it is not yet the miniature's own."""
    start = int(batch.answer_columns[batch.answer_rows == row].min()) + 1
    answer = batch.ids[row, start : start + len(predicted)]
    ends = np.flatnonzero((answer != predicted) | np.isin(answer, STOPS))
    length = len(answer) if not len(ends) else int(ends[0]) + (answer[ends[0]] == predicted[ends[0]])
    stop = start + length
    kept = {
        kind: tuple(part[row, :, :stop].to(torch.float16).contiguous() for part in pair)
        for kind, pair in shared.items()
    }
    return Continuation(
        answer=torch.from_numpy(answer[:length].copy()),
        hidden=hidden[row, start - 1 : stop - 1].clone(),
        shared=kept,  # type: ignore[arg-type]
        start=start,
    )
