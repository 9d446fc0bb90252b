"""An answer that follows a JSON schema, and is whole however few tokens it may take.

At each place the tokens that the grammar does not admit are masked before anything is drawn, so all of sampling works
as without it. With each token that is drawn goes a way to the end, known to fit what is left:

    tokens left   12            11                3            2           1        0
    drawn         {"a":["x"     ,   (admitted)    "y   (admitted, but its shortest end "]} takes 3)
    way to end    ]}            "y"]}             is not taken: the way known before is gone to its end

Thinking comes first and is free, but for its end: it is closed while the shortest instance still fits.
"""

from __future__ import annotations

from collections.abc import Iterator, Set
from typing import Literal, cast

import mlx.core as mx
import numpy as np
from numpy.typing import NDArray

from gemma_mlx.decoding.generate import Token, pairs
from gemma_mlx.decoding.json_grammar import JsonGrammar, Place
from gemma_mlx.decoding.sampling import Sampler, best_logprobs
from gemma_mlx.errors import UsageError
from gemma_mlx.model.decoder import Cache
from gemma_mlx.model.gemma4 import Gemma4


class Constraint:
    """What may come next in one answer of at most `max_tokens`, and what has come.

    `channel` is the pair of tokens around a thought, where the model may think first. UsageError where the shortest
    instance that was found does not fit: nothing has been generated then.
    """

    def __init__(self, grammar: JsonGrammar, max_tokens: int, channel: tuple[int, int] | None = None) -> None:
        self.closed_early = False
        """Whether the answer was brought to its end because no more tokens were left."""
        self._grammar = grammar
        self._place: Place = grammar.start()
        assert grammar.shortest is not None
        self._ending = grammar.shortest
        self._channel = channel
        self._state: Literal["start", "thought", "json"] = "start" if channel else "json"
        needed = len(self._ending) + 1 + (2 if channel else 0)  # the end of the turn, and an empty thought
        if needed > max_tokens:
            raise UsageError(
                f"the shortest answer that the JSON schema admits takes {needed} tokens, and {max_tokens} may come; "
                "allow more with --max-tokens, or ask for less"
            )

    def admitted(self) -> NDArray[np.bool_]:
        """Which tokens may be drawn next, [V]."""
        if self._state == "thought":
            mask = np.ones(len(self._grammar.spellings.first), dtype=np.bool_)
            mask[[*self._grammar.stop_ids, cast("tuple[int, int]", self._channel)[0]]] = False
            return mask
        mask = self._place.admitted()
        if self._state == "start" and self._channel is not None:
            mask[self._channel[0]] = True
        return mask

    @property
    def reserved_tokens(self) -> int:
        """How many tokens the answer takes from here on, behind its thought, at the least."""
        return len(self._ending) + 1  # the end of the turn

    def close_thought(self) -> None:
        """The thought has been closed from outside; at least `reserved_tokens` may still come."""
        self._state = "json"

    def take(self, drawn: int, left: int) -> int:
        """The token that comes: `drawn`, or the next on the way to the end. `left` tokens may come, with this one."""
        if self._channel is not None and self._state != "json":
            taken = self._think(drawn, left, *self._channel)
            if taken is not None:
                return taken
        self._state = "json"
        if drawn in self._grammar.stop_ids and self._place.may_end:
            return drawn
        on_the_way = bool(self._ending) and drawn == self._ending[0]
        following = self._place.after(drawn) if drawn not in self._grammar.stop_ids else None
        ending = self._ending[1:] if on_the_way else following.ending(left - 2) if following else None
        if following is not None and ending is not None:
            self._place, self._ending = following, ending
            return drawn
        self.closed_early = True
        if not self._ending:
            return self._grammar.stop_id
        token = self._ending[0]
        forced = self._place.after(token)
        assert forced is not None
        self._place, self._ending = forced, self._ending[1:]
        return token

    def _think(self, drawn: int, left: int, opens: int, closes: int) -> int | None:
        """The token of a thought that comes; None where the answer begins with `drawn`."""
        if self._state == "start" and drawn != opens:
            return None
        self._state = "thought"
        if drawn != opens and left <= len(self._ending) + 2:  # this token, the instance, the end of the turn
            self.closed_early = self.closed_early or drawn != closes
            drawn = closes
        if drawn == closes:
            self._state = "json"
        return drawn


def generate_constrained(
    model: Gemma4,
    caches: list[Cache],
    hidden: mx.array,
    sampler: Sampler,
    stop_ids: Set[int],
    max_tokens: int,
    logprobs: int = 0,
    *,
    constraint: Constraint,
) -> Iterator[Token]:
    """As `generate`, but only what `constraint` admits; nothing runs ahead, as each token decides what may follow."""
    for left in range(max_tokens, 0, -1):
        logits = model.logits(hidden[0, -1])  # [V]
        best = best_logprobs(logits, logprobs) if logprobs else mx.array(0)  # [2, N]
        mx.async_eval(logits, best)
        admitted = mx.array(constraint.admitted())  # [V], made while the device works
        scores = sampler.scores(mx.where(admitted, logits, -mx.inf)[None], sampler.seen_after(None))  # [1, V]
        token = constraint.take(int(cast("int", sampler.draw(scores).item())), left)
        sampler.took(mx.array([token]))
        yield Token(token, pairs(best) if logprobs else ())
        if token in stop_ids or left == 1:
            return
        hidden = model(model.embed_tokens(mx.array([[token]])), caches)
