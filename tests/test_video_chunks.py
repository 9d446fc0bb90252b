"""A video in a prompt: no chunk ends in a frame, and in chunks of any length it gives the logits of one pass."""

from __future__ import annotations

import mlx.core as mx
import numpy as np

from gemma_mlx import Gemma
from gemma_mlx.decoding.prefill import chunk_bounds
from gemma_mlx.decoding.session import Session
from gemma_mlx.soft_tokens import soft_tokens
from tests.inputs.clips import clip, numbered


def test_frames_are_read_whole_whatever_the_chunks(miniature: Gemma) -> None:
    part = {"type": "video", "video": clip(numbered(30)), "frames": 4}
    prompt = miniature.prompts.build([{"role": "user", "content": [part, {"type": "text", "text": "What is shown?"}]}])
    media = soft_tokens(miniature.model, prompt.spans)
    frames = [(item.start, item.stop) for item in media if item.is_image]
    assert len(frames) == 4
    found = []
    for chunk_tokens in (4096, 16, 70, 100):
        ends = [end for _, end in chunk_bounds(0, len(prompt), frames, chunk_tokens)]
        assert not any(start < end < stop for start, stop in frames for end in ends)
        hidden, _ = Session(miniature.model, chunk_tokens=chunk_tokens).prefill(prompt.ids, media)
        found.append(np.array(miniature.model.logits(hidden).astype(mx.float32)))
    for logits in found[1:]:
        assert np.allclose(logits, found[0], atol=1e-3)
