"""The whole network: token ids, patches and frames in, logits out."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial

import mlx.core as mx
import mlx.nn as nn
from mlx.utils import tree_flatten

from gemma_mlx.config import Config
from gemma_mlx.model.decoder import Cache, Decoder
from gemma_mlx.model.masks import BlockSizes
from gemma_mlx.model.projector import Projector
from gemma_mlx.model.vision import PatchEmbedder


@partial(mx.compile, shapeless=True)
def _softcap(logits: mx.array, cap: mx.array) -> mx.array:
    return mx.tanh(logits / cap) * cap


class Gemma4(nn.Module):
    """Gemma 4 12B unified, batch of one."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self._config = config
        hidden_size = config.text.hidden_size
        self.language_model = Decoder(config.text)
        self.vision_embedder = PatchEmbedder(config.vision)
        self.embed_vision = Projector(config.vision.mm_embed_dim, hidden_size, config.vision.rms_norm_eps)
        self.embed_audio = Projector(config.audio.audio_embed_dim, hidden_size, config.audio.rms_norm_eps)

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """The shape of every tensor by its canonical name; nothing is computed for it."""
        return {name: tuple(array.shape) for name, array in dict(tree_flatten(self.parameters())).items()}

    @property
    def dtype(self) -> mx.Dtype:
        """The type that everything is computed in."""
        return self.language_model.norm.weight.dtype

    def make_caches(self, kv_bits: int | None = None) -> list[Cache]:
        """One empty cache per layer; with `kv_bits` 8 the full layers quantize their rows, or UsageError is raised."""
        return self.language_model.make_caches(kv_bits)

    def embed_tokens(self, ids: mx.array) -> mx.array:
        """Ids [B, L] -> what the layers take for them, [B, L, D].

        Placeholders of media are looked up as padding, as the reference does; `embed` puts soft tokens in their place.
        """
        config = self._config
        for placeholder in (config.image_token_id, config.audio_token_id, config.video_token_id):
            ids = mx.where(ids == placeholder, config.text.pad_token_id, ids)
        return self.token_rows(ids)

    def token_rows(self, ids: mx.array) -> mx.array:
        """Ids [B, L] -> rows of the token table times sqrt(D), rounded to the computing type first as Google does."""
        scale = mx.array(math.sqrt(self._config.text.hidden_size), self.dtype)
        return self.language_model.embed_tokens(ids).astype(self.dtype) * scale  # [B, L, D]

    def embed_image(self, patches: mx.array, positions: mx.array) -> mx.array:
        """Patches [P, 6912] in 0..1 and their (x, y) [P, 2] -> soft tokens [P, D], which are not scaled."""
        return self.embed_vision(self.vision_embedder(patches.astype(self.dtype), positions))

    def embed_sound(self, frames: mx.array) -> mx.array:
        """Frames [F, 640] of 16 kHz sound -> soft tokens [F, D], which are not scaled."""
        return self.embed_audio(frames.astype(self.dtype))

    def embed(self, ids: Sequence[int], soft_tokens: Sequence[tuple[int, mx.array]]) -> mx.array:
        """The embeddings [1, L, D] of `ids`, with each array of soft tokens put in from its index on."""
        embeddings = self.embed_tokens(mx.array([list(ids)]))
        for start, rows in soft_tokens:
            embeddings[:, start : start + rows.shape[0]] = rows.astype(embeddings.dtype)
        return embeddings

    def __call__(
        self,
        embeddings: mx.array,
        caches: list[Cache],
        images: Sequence[tuple[int, int]] = (),
        block_sizes: BlockSizes | None = None,
    ) -> mx.array:
        """Embeddings [1, L, D] -> hidden states [1, L, D] after the last norm; the caches have moved on by L."""
        return self.language_model(embeddings, caches, images, block_sizes or BlockSizes())

    def logits(self, hidden: mx.array) -> mx.array:
        """Hidden states [..., D] -> logits [..., V] through the token table, capped softly at +-30."""
        logits = self.language_model.embed_tokens.as_linear(hidden)
        cap = self._config.text.final_logit_softcapping
        return logits if cap is None else _softcap(logits, mx.array(cap, logits.dtype))
