"""One row for key and value, against attention with a key and a value tensor of their own."""

from __future__ import annotations

from collections import Counter

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest
from numpy.typing import NDArray

from gemma_mlx.config import TextConfig
from gemma_mlx.model.cache import FullCache
from gemma_mlx.model.decoder import FullAttention
from gemma_mlx.model.masks import BlockSizes, full_blocks
from gemma_mlx.model.shared_rows import key_order, relayout, value_order

HIDDEN, HEADS, TOKENS = 64, 4, 11
EPS, THETA = 1e-6, 1_000_000.0
LINEARS = ("q_proj", "k_proj", "o_proj")


def config(kv_heads: int, dims: int, factor: float) -> TextConfig:
    return TextConfig(
        vocab_size=8,
        hidden_size=HIDDEN,
        intermediate_size=8,
        num_hidden_layers=1,
        num_attention_heads=HEADS,
        num_key_value_heads=1,
        head_dim=8,
        num_global_key_value_heads=kv_heads,
        global_head_dim=dims,
        layer_types=("full_attention",),
        sliding_window=4,
        max_position_embeddings=64,
        rms_norm_eps=EPS,
        final_logit_softcapping=None,
        sliding_rope_theta=10_000.0,
        full_rope_theta=THETA,
        partial_rotary_factor=factor,
        pad_token_id=0,
    )


def random_weights(kv_heads: int, dims: int) -> dict[str, mx.array]:
    random = np.random.default_rng(3)
    shapes = {"q_proj": (HEADS * dims, HIDDEN), "k_proj": (kv_heads * dims, HIDDEN), "o_proj": (HIDDEN, HEADS * dims)}
    weights = {f"{name}.weight": random.standard_normal(shape) * shape[1] ** -0.5 for name, shape in shapes.items()}
    for name in ("q_norm", "k_norm"):
        weights[f"{name}.weight"] = 0.5 + 0.1 * random.standard_normal(dims)
    return {name: mx.array(array.astype(np.float32)) for name, array in weights.items()}


def packed(weights: dict[str, mx.array], bits: int, group_size: int) -> dict[str, mx.array]:
    found = {name: array for name, array in weights.items() if "norm" in name}
    for name in LINEARS:
        parts = mx.quantize(weights[f"{name}.weight"], group_size=group_size, bits=bits)
        found |= dict(zip((f"{name}.weight", f"{name}.scales", f"{name}.biases"), parts, strict=True))
    return found


def unpacked(weights: dict[str, mx.array], bits: int, group_size: int) -> dict[str, mx.array]:
    found = {name: array for name, array in weights.items() if "norm" in name}
    for name in LINEARS:
        parts = (weights[f"{name}.{part}"] for part in ("weight", "scales", "biases"))
        found[f"{name}.weight"] = mx.dequantize(*parts, group_size=group_size, bits=bits)
    return found


def plain_attention(weights: dict[str, mx.array], x: mx.array, kv_heads: int, factor: float) -> NDArray[np.float64]:
    """The layer as numerics has it, in float64, with keys and values apart and dims in the checkpoint's order."""
    w = {name.removesuffix(".weight"): np.array(array, np.float64) for name, array in weights.items()}
    inputs, dims = np.array(x[0], np.float64), w["q_norm"].shape[0]
    half, turned = dims // 2, int(factor * dims) // 2
    frequencies = np.concatenate([THETA ** (-np.arange(turned) * 2 / dims), np.zeros(half - turned)])
    angles = np.arange(len(inputs))[:, None, None] * np.concatenate([frequencies, frequencies])

    def rms(a: NDArray[np.float64]) -> NDArray[np.float64]:
        return a / np.sqrt((a**2).mean(-1, keepdims=True) + EPS)

    def rope(a: NDArray[np.float64]) -> NDArray[np.float64]:
        return a * np.cos(angles) + np.concatenate([-a[..., half:], a[..., :half]], -1) * np.sin(angles)

    queries = rope(rms((inputs @ w["q_proj"].T).reshape(len(inputs), HEADS, dims)) * w["q_norm"])
    values = rms((inputs @ w["k_proj"].T).reshape(len(inputs), kv_heads, dims))
    keys = rope(values * w["k_norm"])
    keys, values = (np.repeat(a, HEADS // kv_heads, axis=1) for a in (keys, values))
    scores = np.einsum("lhd,shd->hls", queries, keys)
    scores = np.where(np.tril(np.ones(scores.shape[1:], bool)), scores, -np.inf)
    shares = np.exp(scores - scores.max(-1, keepdims=True))
    shares /= shares.sum(-1, keepdims=True)
    return np.einsum("hls,shd->lhd", shares, values).reshape(len(inputs), -1) @ w["o_proj"].T


def our_attention(
    weights: dict[str, mx.array], x: mx.array, text: TextConfig, packing: tuple[int, int] | None
) -> tuple[NDArray[np.float64], bool]:
    """The layer's output after `relayout`, and whether o_proj could follow the new order."""
    attention = FullAttention(text)
    if packing is not None:
        nn.quantize(attention, bits=packing[0], group_size=packing[1])
    own = dict(weights)
    order = relayout(own, HEADS, text.global_head_dim, text.rotated_dims)
    if order is not None:
        attention.restore_output_order(order)
    attention.load_weights(list(own.items()))
    cache, found = FullCache(), []
    for start, stop in [(0, 7), (7, 10), (10, 11)]:
        found.append(attention(x[:, start:stop], cache, full_blocks(start, stop - start, BlockSizes(full_tokens=4))))
    return np.array(mx.concatenate(found, axis=1)[0], np.float64), order is None


@pytest.fixture(scope="module")
def inputs() -> mx.array:
    return mx.array(np.random.default_rng(5).standard_normal((1, TOKENS, HIDDEN)).astype(np.float32))


@pytest.mark.parametrize(("kv_heads", "dims", "factor"), [(1, 32, 0.25), (2, 32, 0.5), (4, 16, 0.25), (1, 32, 1.0)])
def test_whole_weights_give_plain_attention(inputs: mx.array, kv_heads: int, dims: int, factor: float) -> None:
    weights, text = random_weights(kv_heads, dims), config(kv_heads, dims, factor)
    found, followed = our_attention(weights, inputs, text, None)
    assert followed
    assert np.abs(found - plain_attention(weights, inputs, kv_heads, factor)).max() < 1e-5


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize(
    ("dims", "factor", "group_size", "follows"),
    [
        (256, 0.25, 32, True),  # blocks of 32, groups of 32
        (512, 0.25, 64, True),  # as in the 12B
        (512, 0.25, 32, True),
        (256, 0.25, 64, False),  # blocks of 32, groups of 64
        (64, 0.25, 32, False),
        (32, 0.25, 64, False),  # a group spans two heads
    ],
)
def test_packed_weights_give_plain_attention(
    inputs: mx.array, dims: int, factor: float, group_size: int, bits: int, follows: bool
) -> None:
    weights, text = packed(random_weights(1, dims), bits, group_size), config(1, dims, factor)
    found, followed = our_attention(weights, inputs, text, (bits, group_size))
    assert followed == follows
    wanted = plain_attention(unpacked(weights, bits, group_size), inputs, 1, factor)
    assert np.abs(found - wanted).max() < 2e-5


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize(("dims", "group_size"), [(512, 64), (256, 32), (256, 64), (64, 32)])
def test_packed_weights_move_bit_for_bit(dims: int, group_size: int, bits: int) -> None:
    weights = packed(random_weights(1, dims), bits, group_size)
    moved = dict(weights)
    relayout(moved, HEADS, dims, dims // 4)
    for name in LINEARS:
        words = [np.array(part[f"{name}.weight"]) for part in (weights, moved)]
        assert words[0].shape == words[1].shape
        assert Counter(words[0].ravel().tolist()) == Counter(words[1].ravel().tolist())
        for part in ("scales", "biases"):
            before, after = (np.sort(np.array(found[f"{name}.{part}"]).ravel()) for found in (weights, moved))
            assert (before == after).all()


def test_orders_are_those_drawn() -> None:
    assert key_order(16, 4).tolist() == [0, 1, 8, 9, 2, 3, 4, 5, 6, 7, 10, 11, 12, 13, 14, 15]
    assert value_order(16, 4).tolist() == [2, 3, 4, 5, 6, 7, 10, 11, 12, 13, 14, 15, 0, 1, 8, 9]


def test_cache_row_holds_key_and_value_overlapping(inputs: mx.array) -> None:
    """Dh + R numbers a token and head instead of 2 Dh."""
    attention, cache = FullAttention(config(1, 32, 0.25)), FullCache(step_tokens=TOKENS)
    attention(inputs, cache, full_blocks(0, TOKENS, BlockSizes()))
    assert cache.nbytes == TOKENS * (32 + 8) * 4
