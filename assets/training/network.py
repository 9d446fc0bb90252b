"""One pass of the network: masks, media, and logits where they are needed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch

from assets.training.architecture import SLIDING_WINDOW
from assets.training.batches import Batch

GROUP = 64


def attention_masks(blocks: torch.Tensor) -> dict[str, torch.Tensor]:
    """Boolean masks [B, 1, L, L]: sliding = (causal or same image block) and window, full = causal.

    Audio and text have block -1 and stay causal. This is `create_masks_for_vision_model` of transformers.
    """
    length = blocks.shape[1]
    i = torch.arange(length)
    causal = i[:, None] >= i[None, :]
    same = (blocks[:, :, None] == blocks[:, None, :]) & (blocks[:, :, None] >= 0)
    sliding = (causal | same) & (i[:, None] - i[None, :] < SLIDING_WINDOW)
    full = causal[None, None].expand(len(blocks), 1, length, length)
    return {"full_attention": full, "sliding_attention": sliding[:, None]}


def model_inputs(batch: Batch) -> dict[str, Any]:
    """What the network takes for a batch: ids, masks and media, and that nothing is cached."""
    inputs: dict[str, Any] = {
        "input_ids": torch.from_numpy(batch.ids),
        "attention_mask": attention_masks(torch.from_numpy(batch.blocks)),
        "use_cache": False,
    }
    if batch.patches is not None and batch.positions is not None:
        inputs["pixel_values"] = torch.from_numpy(batch.patches).float() / 255
        inputs["image_position_ids"] = torch.from_numpy(batch.positions)
    if batch.frames is not None and batch.frame_mask is not None:
        inputs["input_features"] = torch.from_numpy(batch.frames)
        inputs["input_features_mask"] = torch.from_numpy(batch.frame_mask)
    return inputs


def hidden_states(model: Any, batch: Batch) -> torch.Tensor:
    """Last hidden states [B, L, D] of a batch, after the final norm."""
    states: torch.Tensor = model.model(**model_inputs(batch)).last_hidden_state
    return states


def logits(model: Any, states: torch.Tensor) -> torch.Tensor:
    """Soft-capped logits of the given states."""
    cap = model.config.text_config.final_logit_softcapping
    capped: torch.Tensor = cap * torch.tanh(model.lm_head(states).float() / cap)
    return capped


def answer_logits(model: Any, batch: Batch) -> torch.Tensor:
    """Logits [A, V] that predict the answer's tokens."""
    states = hidden_states(model, batch)
    chosen = states[torch.from_numpy(batch.answer_rows), torch.from_numpy(batch.answer_columns)]
    padding = torch.zeros(-len(chosen) % 64, chosen.shape[1], dtype=chosen.dtype)
    return logits(model, torch.cat([chosen, padding]))[: len(chosen)]


def exact_rows(batch: Batch, predicted: torch.Tensor) -> np.ndarray:
    """For each sample, whether every answer token is the most likely one: greedy decoding gives this answer."""
    wrong = (predicted.argmax(-1) != torch.from_numpy(batch.targets)).numpy()
    missed = np.zeros(len(batch.ids), np.int64)
    np.add.at(missed, batch.answer_rows, wrong)
    return np.asarray(missed == 0)


def quantized(weight: torch.Tensor) -> torch.Tensor:
    """`weight` rounded as MLX's affine 4-bit quantization with groups of 64 along the input would store it."""
    groups = weight.reshape(-1, GROUP)
    low = groups.min(-1, keepdim=True).values
    scale = ((groups.max(-1, keepdim=True).values - low) / 15).clamp_min(1e-8)
    return ((groups - low) / scale).round().mul(scale).add(low).reshape(weight.shape)


@contextmanager
def four_bit(model: Any) -> Iterator[None]:
    """Inside, text linears and the embedding hold their 4-bit values; gradients go to the weights restored after."""
    text = model.model.language_model
    chosen = [p for p in text.parameters() if p.ndim == 2]
    kept = [p.data for p in chosen]
    for parameter in chosen:
        parameter.data = quantized(parameter.data)
    try:
        yield
    finally:
        for parameter, data in zip(chosen, kept, strict=True):
            parameter.data = data
