"""Stand-ins for a trained drafter: one that knows the answer and gets it wrong at will, and a small random network."""

from __future__ import annotations

import random
from collections.abc import Sequence

import mlx.core as mx

from gemma_mlx.model.decoder import Cache
from gemma_mlx.model.gemma4 import Gemma4


class NoisyCopy:
    """Proposes the token that `answer` has at the place, with probability `rate`, and else another one."""

    def __init__(self, answer: Sequence[int], prompt_tokens: int, vocab_size: int, rate: float) -> None:
        self._answer = answer
        self._prompt_tokens = prompt_tokens
        self._vocab_size = vocab_size
        self._draw = random.Random(1)
        self._rate = rate
        self._offset, self._step = -1, 0

    def step(self, ids: mx.array, hidden: mx.array, caches: list[Cache]) -> tuple[mx.array, mx.array]:
        offset = caches[0].offset
        self._step = self._step + 1 if offset == self._offset else 0
        self._offset = offset
        place = offset - self._prompt_tokens + 1 + self._step
        token = self._answer[place] if place < len(self._answer) else 0
        if self._draw.random() >= self._rate:
            token = (token + 1) % self._vocab_size
        return mx.where(mx.arange(self._vocab_size) == token, 9.0, 0.0)[None], hidden


class RandomDrafter:
    """A layer of random weights over the token before and the hidden state before that."""

    def __init__(self, model: Gemma4, seed: int = 0, scale: float = 1.0) -> None:
        width = model.embed_tokens(mx.array([[0]])).shape[-1]
        keys = mx.random.split(mx.random.key(seed), 2)
        self._model = model
        self._mix = mx.random.normal((2 * width, width), key=keys[0]) / width
        self._scale = scale

    def step(self, ids: mx.array, hidden: mx.array, caches: list[Cache]) -> tuple[mx.array, mx.array]:
        joined = mx.concatenate([self._model.embed_tokens(ids), hidden], axis=-1)  # [1, 1, 2 D]
        mixed = mx.tanh(joined @ self._mix)
        return self._scale * self._model.logits((hidden + mixed)[0]), hidden + mixed  # [1, V], [1, 1, D]
