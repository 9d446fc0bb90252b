r"""A hard budget of thoughts: when it is used up inside a thought, the thought is closed for the model.

    budget 4    <|channel> thought \n The user | \n <channel|> | Five.<turn|>
                           1       2  3   4      written for it  drawn again

All thoughts of an answer share the budget, so none is opened after that: `<|channel>` is no longer drawn. What is
written is cached and counted as if it had been generated, and drawing begins anew behind it, from the hidden state of
the last written token. So whoever draws (one by one, with drafts, under a grammar) needs to know nothing of budgets,
and what follows is what follows a prompt that ends there.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import mlx.core as mx

from gemma_mlx.decoding.generate import Token, pairs, settle
from gemma_mlx.decoding.sampling import best_logprobs
from gemma_mlx.errors import UsageError
from gemma_mlx.model.decoder import Cache
from gemma_mlx.model.gemma4 import Gemma4

Thinking = bool | int
"""Whether the model thinks before it answers; a number is the most tokens of thought, and 0 the same as False."""


def thinking_budget(thinking: Thinking) -> int | None:
    """The most tokens of thought; None for as many as come. UsageError for a number below 0."""
    if isinstance(thinking, bool):
        return None
    if thinking < 0:
        raise UsageError(f"the budget of thoughts is {thinking}, it must be 0 or more; 0 switches thinking off")
    return thinking


class Thoughts:
    """Counts the tokens between `<|channel>` and `<channel|>`, the channel's name with them."""

    def __init__(self, channel_open: int, channel_close: int, budget: int | None = None) -> None:
        self.tokens = 0
        self._budget = budget
        self._open, self._close = channel_open, channel_close
        self._inside = False

    def skip(self, ids: Iterable[int]) -> None:
        """Follows ids of the prompt: it may end inside a thought. They do not count."""
        for index in ids:
            if index in (self._open, self._close):
                self._inside = index == self._open

    def take(self, index: int) -> None:
        """The token `index` has been generated."""
        if index in (self._open, self._close):
            self._inside = index == self._open
        else:
            self.tokens += self._inside

    @property
    def spent(self) -> bool:
        """Whether the answer is inside a thought, and no token of it may follow."""
        return self._inside and self._budget is not None and self.tokens >= self._budget


def write_for_model(
    model: Gemma4, caches: list[Cache], offset: int, last: int, ids: Sequence[int], logprobs: int = 0
) -> tuple[list[Token], mx.array]:
    """Puts `ids` behind the generated token `last` that belongs at position `offset`, wherever drawing was left.

    Returns them as tokens, each with what the model itself found likeliest there, and the hidden state of the last one
    [1, 1, D], from which drawing goes on. The caches hold all of them.
    """
    if settle(caches, offset) != offset:
        raise ValueError("tokens before the last one are not cached")
    hidden = model(model.embed_tokens(mx.array([[last, *ids]])), caches)  # [1, N + 1, D]
    found: list[tuple[tuple[int, float], ...]] = [()] * len(ids)
    if logprobs:
        best = best_logprobs(model.logits(hidden[0, :-1]), logprobs)  # [N, 2, logprobs]
        found = [pairs(best[place]) for place in range(len(ids))]
    return [Token(index, best) for index, best in zip(ids, found, strict=True)], hidden[:, -1:]
