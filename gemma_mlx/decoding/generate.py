"""Token after token, one step ahead: while the host looks at a token, the device works on the next."""

from __future__ import annotations

from collections.abc import Iterator, Set
from dataclasses import dataclass
from typing import cast

import mlx.core as mx

from gemma_mlx.decoding.sampling import Sampler, best_logprobs
from gemma_mlx.model.decoder import Cache
from gemma_mlx.model.gemma4 import Gemma4


@dataclass(frozen=True)
class Token:
    """One generated token. `logprobs` are the model's best (id, log-probability) for this place, if asked for."""

    id: int
    logprobs: tuple[tuple[int, float], ...] = ()


def generate(
    model: Gemma4,
    caches: list[Cache],
    hidden: mx.array,
    sampler: Sampler,
    stop_ids: Set[int],
    max_tokens: int,
    logprobs: int = 0,
) -> Iterator[Token]:
    """Yields tokens until one in `stop_ids` (it is yielded too) or `max_tokens` of them.

    `hidden` [1, 1, D] is the prompt's last hidden state. However this ends, also by an exception or by being closed,
    the caches hold the prompt and a prefix of the tokens, which may lack the last one yielded; see `settle`.
    """
    token, best = _choose(model, hidden, sampler, logprobs)
    mx.async_eval(token, best)
    for remaining in range(max_tokens - 1, -1, -1):
        if remaining:
            hidden = model(model.embed_tokens(token.reshape(1, 1)), caches)
            next_token, next_best = _choose(model, hidden, sampler, logprobs)
            mx.async_eval(next_token, next_best)
        found = int(cast("int", token.item()))
        yield Token(found, pairs(best) if logprobs else ())
        if found in stop_ids or not remaining:
            return
        token, best = next_token, next_best


def settle(caches: list[Cache], offset: int) -> int:
    """Rewinds caches that ran ahead of position `offset`; returns where all of them stand then.

    Whether or not drafting was on, only rows of the last update are ahead, and rewinding those is always exact.
    """
    target = min(offset, caches[0].offset)
    for cache in caches:
        cache.rewind(cache.offset - target)
    return target


def _choose(model: Gemma4, hidden: mx.array, sampler: Sampler, logprobs: int) -> tuple[mx.array, mx.array]:
    logits = model.logits(hidden[0, -1])  # [V]
    return sampler(logits), best_logprobs(logits, logprobs) if logprobs else mx.array(0)  # [], [2, N]


def pairs(best: mx.array) -> tuple[tuple[int, float], ...]:
    """What `best_logprobs` found for one place [2, N], as (id, log-probability)."""
    ids, values = cast("list[list[float]]", best.tolist())
    return tuple((int(index), value) for index, value in zip(ids, values, strict=True))
