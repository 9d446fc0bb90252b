"""A point of the memory series with this program's model: `python -m benchmarks.memory_point SETTINGS`."""

from __future__ import annotations

from pathlib import Path

import mlx.core as mx

from benchmarks.plain_layout import make_plain_caches, use_plain_layout
from benchmarks.point import DTYPES, PointSettings, tell
from benchmarks.random_rows import fill_caches
from gemma_mlx.adapters.layers import place
from gemma_mlx.config import read_config
from gemma_mlx.decoding.generate import generate
from gemma_mlx.decoding.prefill import finish_chunk, forward_chunk
from gemma_mlx.decoding.sampling import Sampler, Sampling
from gemma_mlx.loader import runnable_adapter
from gemma_mlx.model.cache import SlidingCache, SlidingSnapshot
from gemma_mlx.model.decoder import Cache
from gemma_mlx.model.masks import BlockSizes
from gemma_mlx.weights import load_model

TOKEN = 3
"""What is decoded first and prefilled; its rows are what they are."""


class OwnModel:
    """Our model and its caches, in either layout."""

    def __init__(self, settings: PointSettings) -> None:
        folder = Path(settings.folder)
        config = read_config(folder)
        self._config = config.text
        adapter = runnable_adapter(settings.adapter, config)
        self._model = load_model(folder, config, DTYPES[settings.dtype], adapter.whole if adapter else {})
        if adapter:
            place(self._model, config.text, adapter)
        self._block_sizes = BlockSizes(**settings.block_sizes)
        self._held: list[object] = []
        self._caches: list[Cache]
        if settings.layout == "plain":
            use_plain_layout(self._model)
            self._caches = make_plain_caches(self._model, self._config.global_head_dim)
        else:
            self._caches = self._model.make_caches(settings.kv_bits)

    def fill(self, settings: PointSettings) -> None:
        fill_caches(
            self._model, self._config, self._caches, settings.filled_tokens, settings.context_tokens, settings.seed
        )
        for _ in range(settings.snapshots):
            self._held.append([_copied(cache.snapshot()) for cache in self._caches if isinstance(cache, SlidingCache)])

    def decode(self, tokens: int) -> None:
        sampler = Sampler(Sampling(temperature=0), self._config.vocab_size)
        first = self._model(self._model.embed_tokens(mx.array([[TOKEN]])), self._caches)
        for _ in generate(self._model, self._caches, first, sampler, frozenset(), tokens):
            pass

    def prefill(self, tokens: int) -> None:
        stop = self._caches[0].offset + tokens
        hidden = forward_chunk(self._model, self._caches, [TOKEN] * stop, (), stop, self._block_sizes)
        last = hidden[:, -1:]
        del hidden
        finish_chunk(self._caches, last)


def _copied(snapshot: SlidingSnapshot) -> list[mx.array]:
    """Keys and values in memory of their own: several snapshots of one moment would share what they hold."""
    arrays = [mx.concatenate([one[..., :1, :], one[..., 1:, :]], axis=2) for one in (snapshot.keys, snapshot.values)]
    mx.eval(arrays)
    return arrays


if __name__ == "__main__":
    tell(OwnModel)
