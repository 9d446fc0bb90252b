"""Fixtures of the tests of decoding."""

from __future__ import annotations

import pytest

from gemma_mlx.config import Config
from gemma_mlx.model.gemma4 import Gemma4
from gemma_mlx.weights import load_model
from tests.golden.cases import TINY


@pytest.fixture(scope="module")
def lively_model(tiny_config: Config) -> Gemma4:
    """Four layers of the tiny model, with sharper attention: greedy answers do not end up repeating one token."""
    model = load_model(TINY, tiny_config)
    model.language_model.layers = model.language_model.layers[3:7]  # the third is a full one
    for layer in model.language_model.layers:
        for norm in (layer.post_attention_layernorm, layer.self_attn.q_norm):
            norm.weight = 8 * norm.weight
    return model
