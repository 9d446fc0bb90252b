"""The patch embedder: 48 x 48 pixels and where they stand become one vector. There is no vision encoder."""

from __future__ import annotations

import mlx.core as mx
import mlx.nn as nn

from gemma_mlx.config import VisionConfig

LAYER_NORM_EPS = 1e-5
"""torch's default, which the reference uses here; the RMSNorms have 1e-6."""


class PatchEmbedder(nn.Module):
    """`vision_embedder` of the checkpoint; `embed_vision` (`projector.py`) takes its output to the decoder's width."""

    def __init__(self, config: VisionConfig) -> None:
        super().__init__()
        dims = config.mm_embed_dim
        self.patch_ln1 = nn.LayerNorm(config.patch_dims, eps=LAYER_NORM_EPS)
        self.patch_dense = nn.Linear(config.patch_dims, dims)
        self.patch_ln2 = nn.LayerNorm(dims, eps=LAYER_NORM_EPS)
        self.pos_embedding = mx.zeros((config.mm_posemb_size, 2, dims))
        self.pos_norm = nn.LayerNorm(dims, eps=LAYER_NORM_EPS)

    def __call__(self, patches: mx.array, positions: mx.array) -> mx.array:
        """Patches [P, 6912] with values in 0..1, positions [P, 2] as (x, y) -> [P, mm_embed_dim]."""
        x = self.patch_ln1(patches)
        x = self.patch_ln2(self.patch_dense(x))
        x = x + self.pos_embedding[positions[:, 0], 0] + self.pos_embedding[positions[:, 1], 1]
        return self.pos_norm(x)
