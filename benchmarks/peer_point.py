"""A point of the memory series with a peer's model and caches: `python -m benchmarks.peer_point SETTINGS`.

The same folder, the same contexts, random rows put into the peer's own cache objects, as large as they would have grown
by then. mlx-lm loads the text model only; mlx-vlm the towers too, as we do.
"""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import mlx.core as mx

from benchmarks.point import DTYPES, PointSettings, tell
from gemma_mlx.config import TextConfig, read_config

PEERS = {"mlx-lm": "mlx_lm", "mlx-vlm": "mlx_vlm"}
"""The modules to import, by the name of the package to install."""

PREFILL_TOKENS = 2048
"""How long a prefill chunk of both peers is, when nobody says otherwise."""

TOKEN = 3
GROWTH_TOKENS = 256
"""A peer's full layer grows in such steps, copying what it has."""
SLAB_TOKENS = 4096


class PeerModel:
    """The model of the peer that `layout` names, and its caches."""

    def __init__(self, settings: PointSettings) -> None:
        folder = Path(settings.folder)
        self._config = read_config(folder).text
        self._dtype = DTYPES[settings.dtype]
        utils: Any = importlib.import_module(f"{PEERS[settings.layout]}.utils")
        if settings.layout == "mlx-lm":  # it takes the vocabulary's size from the top of config.json only
            self._whole: Any = utils.load_model(folder, model_config={"vocab_size": self._config.vocab_size})[0]
        else:
            self._whole = utils.load_model(folder)
        self._whole.set_dtype(self._dtype)
        mx.eval(self._whole.parameters())
        self._text = self._whole.language_model
        self._caches: list[Any] = self._text.make_cache()

    def fill(self, settings: PointSettings) -> None:
        mx.random.seed(settings.seed)
        for cache, kind in zip(self._caches, self._config.layer_types, strict=True):
            tokens = settings.filled_tokens
            if kind == "sliding_attention":
                _fill_ring(cache, self._config, tokens, self._dtype)
            else:
                heads, dims = self._config.num_global_key_value_heads, self._config.global_head_dim
                rows = -(-tokens // GROWTH_TOKENS) * GROWTH_TOKENS
                cache.keys, cache.values = (_random_rows(heads, rows, dims, self._dtype) for _ in range(2))
                cache.offset = tokens

    def decode(self, tokens: int) -> None:
        token = mx.array([TOKEN])
        for _ in range(tokens):
            token = mx.argmax(self._logits(token)[:, -1], axis=-1)
            mx.eval(token)

    def prefill(self, tokens: int) -> None:
        self._logits(mx.full((tokens,), TOKEN))
        mx.eval([[cache.keys, cache.values] for cache in self._caches])
        mx.clear_cache()

    def _logits(self, ids: mx.array) -> mx.array:
        found = self._text(ids[None], cache=self._caches)
        logits: mx.array = getattr(found, "logits", found)
        return logits


def _random_rows(heads: int, rows: int, dims: int, dtype: mx.Dtype) -> mx.array:
    """Random rows [1, K, rows, D] of length sqrt(D), made in slabs."""
    buffer = mx.zeros((1, heads, rows, dims), dtype=dtype)
    for start in range(0, rows, SLAB_TOKENS):
        slab = mx.random.normal((1, heads, min(SLAB_TOKENS, rows - start), dims), dtype=dtype)
        buffer[:, :, start : start + SLAB_TOKENS] = mx.fast.rms_norm(slab, None, 1e-6)
        mx.eval(buffer)
    return buffer


def _fill_ring(cache: Any, config: TextConfig, tokens: int, dtype: mx.Dtype) -> None:
    """A rotating cache's ring, whole or as far as it has come."""
    rows = min(tokens, config.sliding_window)
    cache.keys, cache.values = (
        _random_rows(config.num_key_value_heads, rows, config.head_dim, dtype) for _ in range(2)
    )
    cache.offset, cache._idx = tokens, rows


if __name__ == "__main__":
    tell(PeerModel)
