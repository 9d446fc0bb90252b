"""How two distributions over the next token differ, position by position, and what that comes to over many."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

Rows = NDArray[np.float64]


def log_softmax(logits: NDArray[Any]) -> Rows:
    """Log-probabilities [P, V] of `logits` [P, V], in float64."""
    shifted = logits.astype(np.float64)
    shifted -= shifted.max(-1, keepdims=True)
    shifted -= np.log(np.exp(shifted).sum(-1, keepdims=True))
    return shifted


def kl_divergence(wanted: Rows, found: Rows) -> Rows:
    """KL(wanted || found) [P] in nats of log-probabilities [P, V], over the whole vocabulary."""
    return (np.exp(wanted) * (wanted - found)).sum(-1)  # type: ignore[no-any-return]


@dataclass
class Divergence:
    """Positions that predict given tokens, each as the reference and another model see it."""

    kl: list[float] = field(default_factory=list)
    """Of the reference's distribution to the other's, in nats."""
    agrees: list[bool] = field(default_factory=list)
    """Whether both find the same token likeliest."""
    logprobs: list[float] = field(default_factory=list)
    """Of the given tokens, in the other's distribution."""
    answers: list[bool] = field(default_factory=list)
    """For each answer, whether the other would give it token for token, decoding greedily."""

    def add(self, wanted: NDArray[Any], found: NDArray[Any], tokens: Sequence[int]) -> bool:
        """Compares logits [P, V] at the positions that predict `tokens` [P]; returns whether each is the likeliest."""
        reference, other = log_softmax(wanted), log_softmax(found)
        likeliest = found.argmax(-1)
        self.kl += kl_divergence(reference, other).tolist()
        self.agrees += (wanted.argmax(-1) == likeliest).tolist()
        self.logprobs += other[np.arange(len(tokens)), list(tokens)].tolist()
        return bool((likeliest == np.array(tokens)).all())

    def extend(self, other: Divergence) -> None:
        """Adds all positions of `other`."""
        self.kl += other.kl
        self.agrees += other.agrees
        self.logprobs += other.logprobs
        self.answers += other.answers

    @property
    def figures(self) -> dict[str, Any]:
        """The figures over all positions, of which there is at least one."""
        kl = np.array(self.kl)
        return {
            "answers": len(self.answers),
            "answers_again": sum(self.answers),
            "positions": len(kl),
            "kl_mean": float(kl.mean()),
            "kl_median": float(np.median(kl)),
            "kl_p99": float(np.quantile(kl, 0.99)),
            "kl_max": float(kl.max()),
            "top1_agreement": float(np.mean(self.agrees)),
            "perplexity": float(np.exp(-np.mean(self.logprobs))),
        }
