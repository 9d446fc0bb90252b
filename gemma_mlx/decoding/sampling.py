"""From logits to a token: penalty, suppression, temperature, top-k, top-p, min-p, in transformers' order.

Everything stays on the device: the token comes out as an array that nobody has waited for. The n-th draw of an answer
always meets the same random numbers, one per token of the vocabulary (the Gumbel trick: the largest sum of
log-probability and noise is a fair draw). So a seed fixes an answer, however many draws are made in one pass.
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from dataclasses import dataclass

import mlx.core as mx

from gemma_mlx.errors import UsageError


@dataclass(frozen=True)
class Sampling:
    """How to choose the next token. `temperature=0` is greedy, and then the filters below have nothing to do."""

    temperature: float = 1.0
    top_k: int = 64
    """Only the k most likely tokens; 0 for all."""
    top_p: float = 0.95
    """Only the most likely tokens that together reach this probability; 1 for all."""
    min_p: float = 0.0
    """Only tokens at least this likely, relative to the most likely one."""
    repetition_penalty: float = 1.0
    """Divides the logit of each token that the prompt or the answer already holds (multiplies a negative one)."""
    seed: int | None = None
    """The same seed gives the same answer on the same machine; None takes a new one each time."""
    suppress_tokens: tuple[int, ...] = ()
    """Ids that never come out."""

    def __post_init__(self) -> None:
        limits = {
            "temperature": (self.temperature == 0 or 1e-3 <= self.temperature <= 1e3, "0, or from 0.001 to 1000"),
            "top_k": (self.top_k >= 0, "0 or more"),
            "top_p": (0 < self.top_p <= 1, "above 0 and at most 1"),
            "min_p": (0 <= self.min_p <= 1, "from 0 to 1"),
            "repetition_penalty": (0.01 <= self.repetition_penalty <= 100, "from 0.01 to 100"),
        }
        for name, (holds, wanted) in limits.items():
            if not holds:
                raise UsageError(f"{name} is {getattr(self, name)}, it must be {wanted}")


class Sampler:
    """Draws the tokens of one answer by one `Sampling`, remembering what it has seen and how many it has drawn."""

    def __init__(self, sampling: Sampling, vocab_size: int, ids: Sequence[int] = (), drawn: int = 0) -> None:
        """`ids` are what stands before the next draw; the last `drawn` of them are the answer's own."""
        self._sampling = sampling
        root = mx.random.key(secrets.randbits(63) if sampling.seed is None else sampling.seed)
        self._draw_key, self._spare_key = mx.random.split(root)
        self._drawn = drawn
        self._suppressed = mx.array(list(sampling.suppress_tokens)) if sampling.suppress_tokens else None
        self._seen: mx.array | None = None
        if sampling.repetition_penalty != 1:
            self._seen = mx.zeros((vocab_size,), dtype=mx.bool_)
            self._seen[mx.array(list(ids), dtype=mx.int32)] = True

    @property
    def repeatable(self) -> bool:
        """Whether each draw depends on nothing but the logits: with a seed, or greedily."""
        return self._sampling.temperature == 0 or self._sampling.seed is not None

    def __call__(self, logits: mx.array) -> mx.array:
        """Logits [V] -> the id of the next token, a scalar that has not been waited for."""
        token = self.draw(self.scores(logits[None], self.seen_after(None)))
        self.took(token)
        return token[0]

    def scores(self, logits: mx.array, seen: mx.array | None) -> mx.array:
        """Logits [N, V] -> what to draw each row by, [N, V]: log-probabilities after all filters, -inf for never.

        `seen` [N, V] is what `seen_after` gives for the rows. Greedily there are no filters, and the scores are logits.
        """
        logits = self._adjusted(logits.astype(mx.float32), seen)
        if self._sampling.temperature == 0:
            return logits
        candidates, scores = filtered(logits, self._sampling)  # [N, k]
        logprobs = scores - mx.logsumexp(scores, axis=-1, keepdims=True)
        return mx.put_along_axis(mx.full(logits.shape, -mx.inf), candidates, logprobs, axis=-1)  # [N, V]

    def draw(self, scores: mx.array, ahead: int = 0) -> mx.array:
        """The ids [N] that `scores` [N, V] give in the next draws, the first `ahead` of them passed over."""
        if self._sampling.temperature == 0:
            return mx.argmax(scores, axis=-1)
        rows, vocab_size = scores.shape
        first = self._drawn + ahead
        keys = [_nth(self._draw_key, index) for index in range(first, first + rows)]
        return mx.argmax(scores + mx.stack([mx.random.gumbel((vocab_size,), key=key) for key in keys]), axis=-1)

    def spare_keys(self) -> tuple[mx.array, mx.array]:
        """Two keys that no draw uses, new ones each time that something has been drawn."""
        first, second = mx.random.split(_nth(self._spare_key, self._drawn))
        return first, second

    def seen_after(self, drafted: mx.array | None) -> mx.array | None:
        """What will have been seen before each of `drafted` [n] and after the last, [n + 1, V]; None if nobody asks."""
        if self._seen is None:
            return None
        rows = [self._seen]
        for index in range(0 if drafted is None else drafted.size):
            assert drafted is not None
            rows.append(mx.put_along_axis(rows[-1], drafted[index : index + 1], mx.array(True), axis=-1))
        return mx.stack(rows)

    def took(self, tokens: mx.array) -> None:
        """`tokens` [N] are the answer's next ones: the draws after them come next."""
        self._drawn += tokens.size
        if self._seen is not None:
            self._seen = mx.put_along_axis(self._seen, tokens, mx.array(True), axis=-1)

    def _adjusted(self, logits: mx.array, seen: mx.array | None) -> mx.array:
        if seen is not None:
            penalty = self._sampling.repetition_penalty
            penalised = mx.where(logits < 0, logits * penalty, logits / penalty)
            logits = mx.where(seen, penalised, logits)
        if self._suppressed is not None:
            logits = logits.at[:, self._suppressed].minimum(-mx.inf)
        return logits


def _nth(key: mx.array, index: int) -> mx.array:
    """The key of the `index`-th draw; different keys make unrelated numbers, however little they differ."""
    return key + mx.array([0, index], dtype=mx.uint32)


def filtered(logits: mx.array, sampling: Sampling) -> tuple[mx.array, mx.array]:
    """The tokens that may be drawn and their scores, most likely first: ids and log-weights [..., k], -inf for never.

    `temperature` must be above 0. With top-k on, only k candidates go through the filters after it; of equally likely
    tokens at the k-th place, some are left out.
    """
    scores = logits / sampling.temperature  # [..., V]
    vocab_size = logits.shape[-1]
    candidates = _best(scores, min(sampling.top_k or vocab_size, vocab_size))
    scores = mx.take_along_axis(scores, candidates, axis=-1)  # [..., k], falling
    if sampling.top_p < 1:
        probabilities = mx.softmax(scores, axis=-1, precise=True)
        before = mx.cumsum(probabilities, axis=-1) - probabilities  # what the more likely ones reach without this one
        scores = mx.where((before < sampling.top_p) | (mx.arange(scores.shape[-1]) == 0), scores, -mx.inf)
    if sampling.min_p > 0:
        scores = mx.where(scores >= scores[..., :1] + mx.log(mx.array(sampling.min_p)), scores, -mx.inf)
    return candidates, scores


def best_logprobs(logits: mx.array, count: int) -> mx.array:
    """The `count` most likely ids and their log-probabilities, [..., 2, count] in float32, before any filter."""
    logprobs = logits.astype(mx.float32)
    logprobs = logprobs - mx.logsumexp(logprobs, axis=-1, keepdims=True)  # [..., V]
    best = _best(logprobs, min(count, logprobs.shape[-1]))
    return mx.stack([best.astype(mx.float32), mx.take_along_axis(logprobs, best, axis=-1)], axis=-2)


def _best(scores: mx.array, count: int) -> mx.array:
    """The places of the `count` highest of `scores` [..., V], the highest first: [..., count]."""
    if count == scores.shape[-1]:
        return mx.argsort(-scores, axis=-1)
    best = mx.argpartition(-scores, count - 1, axis=-1)[..., :count]
    order = mx.argsort(-mx.take_along_axis(scores, best, axis=-1), axis=-1)
    return mx.take_along_axis(best, order, axis=-1)
