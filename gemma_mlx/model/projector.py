"""The waveform projector, and the last step of the patch embedder: RMSNorm without a weight, then one matrix.

For sound this is all there is: no encoder, no spectrogram. 640 raw samples (40 ms) become one soft token, and where it
stands in the text is all that tells its time.
"""

from __future__ import annotations

import mlx.core as mx
import mlx.nn as nn


class Projector(nn.Module):
    """`embed_audio` (frames of sound) and `embed_vision` (embedded patches) of the checkpoint."""

    def __init__(self, input_dims: int, hidden_size: int, eps: float) -> None:
        super().__init__()
        self._eps = eps
        self.embedding_projection = nn.Linear(input_dims, hidden_size, bias=False)

    def __call__(self, x: mx.array) -> mx.array:
        """Frames [F, 640] or patches [P, mm_embed_dim] -> soft tokens [F or P, D]."""
        return self.embedding_projection(mx.fast.rms_norm(x, None, self._eps))
