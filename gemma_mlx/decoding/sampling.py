"""From logits to a token: penalty, suppression, temperature, top-k, top-p, min-p, in transformers' order.

Everything stays on the device: the token comes out as an array that nobody has waited for.
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
    """Draws tokens by one `Sampling`, remembering what it has seen."""

    def __init__(self, sampling: Sampling, vocab_size: int, prompt_ids: Sequence[int] = ()) -> None:
        self._sampling = sampling
        self._key = mx.random.key(secrets.randbits(63) if sampling.seed is None else sampling.seed)
        self._suppressed = mx.array(list(sampling.suppress_tokens)) if sampling.suppress_tokens else None
        self._seen: mx.array | None = None
        if sampling.repetition_penalty != 1:
            self._seen = mx.zeros((vocab_size,), dtype=mx.bool_)
            self._seen[mx.array(list(prompt_ids), dtype=mx.int32)] = True

    def __call__(self, logits: mx.array) -> mx.array:
        """Logits [V] -> the id of the next token, a scalar that has not been waited for."""
        logits = self._adjusted(logits.astype(mx.float32))
        if self._sampling.temperature == 0:
            token = mx.argmax(logits)
        else:
            self._key, key = mx.random.split(self._key)
            candidates, scores = filtered(logits, self._sampling)
            token = candidates[mx.random.categorical(scores, key=key)]
        if self._seen is not None:
            self._seen[token] = True
        return token

    def _adjusted(self, logits: mx.array) -> mx.array:
        if self._seen is not None:
            penalty = self._sampling.repetition_penalty
            penalised = mx.where(logits < 0, logits * penalty, logits / penalty)
            logits = mx.where(self._seen, penalised, logits)
        if self._suppressed is not None:
            logits = logits.at[self._suppressed].minimum(-mx.inf)
        return logits


def filtered(logits: mx.array, sampling: Sampling) -> tuple[mx.array, mx.array]:
    """The tokens that may be drawn and their scores, most likely first: ids [k] and log-weights [k], -inf for never.

    `temperature` must be above 0. With top-k on, only k candidates go through the filters after it; of equally likely
    tokens at the k-th place, some are left out.
    """
    scores = logits / sampling.temperature
    vocab_size = logits.shape[-1]
    if 0 < sampling.top_k < vocab_size:
        candidates = mx.argpartition(-scores, sampling.top_k - 1)[: sampling.top_k]
        candidates = candidates[mx.argsort(-scores[candidates])]
    else:
        candidates = mx.argsort(-scores)
    scores = scores[candidates]  # [k], falling
    if sampling.top_p < 1:
        probabilities = mx.softmax(scores, precise=True)
        before = mx.cumsum(probabilities) - probabilities  # what the more likely ones reach without this one
        scores = mx.where((before < sampling.top_p) | (mx.arange(scores.size) == 0), scores, -mx.inf)
    if sampling.min_p > 0:
        scores = mx.where(scores >= scores[0] + mx.log(mx.array(sampling.min_p)), scores, -mx.inf)
    return candidates, scores


def best_logprobs(logits: mx.array, count: int) -> mx.array:
    """The `count` most likely ids and their log-probabilities, [2, count] in float32, before any filter."""
    logprobs = logits.astype(mx.float32) - mx.logsumexp(logits.astype(mx.float32))
    best = mx.argpartition(-logprobs, count - 1)[:count] if count < logprobs.size else mx.arange(logprobs.size)
    best = best[mx.argsort(-logprobs[best])]
    return mx.stack([best.astype(mx.float32), logprobs[best]])
