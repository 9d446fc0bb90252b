"""What a draft step and a pass of the target over a few rows take on this machine."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Literal, Protocol

import mlx.core as mx

from gemma_mlx.model.decoder import Cache
from gemma_mlx.model.gemma4 import Gemma4

MAX_DEPTH = 8
"""Most tokens of a draft. A pass over a draft and the token before it must fit a sliding cache's slack."""

MEASURE_S = 0.1
"""About how long measuring may take; what it does not get to is read off a line between its neighbours."""

_ORDER = (1, MAX_DEPTH + 1, 4, 2, 6, 3, 5, 7, 8)

Source = Literal["mtp", "lookup"]


class Drafter(Protocol):
    """A small network that guesses on from what the target has cached."""

    def step(self, ids: mx.array, hidden: mx.array, caches: list[Cache]) -> tuple[mx.array, mx.array]:
        """A token [1, 1] and the hidden state before it [1, 1, D] -> logits [1, V] and a hidden state [1, 1, D]."""
        ...


@dataclass(frozen=True)
class Costs:
    """Seconds of one draft step, and of a pass over 1, 2, ... MAX_DEPTH + 1 rows with their logits.

    Without a drafter there is nothing known of its step.
    """

    draft_s: float | None
    verify_s: tuple[float, ...]

    def round_s(self, source: Source, depth: int) -> float:
        """Seconds of drafting `depth` tokens and checking them. Looking up takes no time worth counting."""
        if source == "lookup":
            return self.verify_s[depth]
        assert self.draft_s is not None
        return self.verify_s[depth] + depth * self.draft_s


def measure_costs(
    model: Gemma4, caches: list[Cache], drafter: Drafter | None = None, budget_s: float = MEASURE_S
) -> Costs:
    """Measures on caches that hold a prompt, and leaves them at the position where they were.

    A pass runs again where that is quick, and the quicker run counts. On a machine where passes take long, only those
    over the fewest and the most rows run, once.
    """
    started_s = time.perf_counter()
    found: dict[int, float] = {}
    for rows in _ORDER:
        if len(found) >= 2 and time.perf_counter() - started_s > budget_s:
            break
        found[rows] = _timed(partial(_pass, model, caches, rows))
        if found[rows] < budget_s / len(_ORDER):
            found[rows] = min(found[rows], _timed(partial(_pass, model, caches, rows)))
    draft_s = None
    if drafter is not None:
        hidden = mx.zeros((1, 1, model.embed_tokens(mx.array([[0]])).shape[-1]), dtype=model.dtype)
        draft_s = min(_timed(lambda: drafter.step(mx.array([[0]]), hidden, caches)) for _ in range(3))
    return Costs(draft_s, tuple(_between(found, rows) for rows in range(1, MAX_DEPTH + 2)))


def _pass(model: Gemma4, caches: list[Cache], rows: int) -> mx.array:
    hidden = model(model.embed_tokens(mx.zeros((1, rows), dtype=mx.int32)), caches)
    for cache in caches:
        cache.rewind(rows)
    return model.logits(hidden[0])


def _timed(compute: Callable[[], mx.array | tuple[mx.array, ...]]) -> float:
    started_s = time.perf_counter()
    mx.eval(compute())
    return time.perf_counter() - started_s


def _between(found: dict[int, float], rows: int) -> float:
    """What was found for `rows`, or a point on the line between the next smaller and larger ones."""
    below, above = (max(n for n in found if n <= rows), min(n for n in found if n >= rows))
    share = (rows - below) / (above - below) if above > below else 0.0
    return found[below] + share * (found[above] - found[below])
