"""The decoder: 48 layers, five that slide over a window of 1024 tokens to one that sees everything.

Faithful to transformers' `Gemma4UnifiedTextModel`: RMSNorm weights are plain (no + 1), attention is not scaled,
`layer_scalar` multiplies the whole residual stream. Attribute names are the checkpoint's.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import mlx.core as mx
import mlx.nn as nn

from gemma_mlx.config import TextConfig
from gemma_mlx.model.cache import FullCache, SlidingCache
from gemma_mlx.model.masks import BlockSizes, QueryBlock, full_blocks, sliding_blocks
from gemma_mlx.model.quantized_cache import QuantizedCache, attend_packed_rows, check_kv_bits
from gemma_mlx.model.rope import Rope
from gemma_mlx.model.shared_rows import attend_rows, make_rows

Cache = FullCache | QuantizedCache | SlidingCache

LAZY_TOKENS = 16
"""A longer chunk is evaluated layer by layer: then what one layer takes on the way is all that is ever taken, and can
be planned (`gemma_mlx/memory.py`). For a few tokens the device would wait for the host more than it works."""
LAZY_PAIRS = 1 << 18
"""A few tokens over more pairs of query and key are evaluated up to each full layer: MLX holds what a layer took until
the device is done with it, and the host runs far ahead."""
MLP_TOKENS = 512
"""Tokens that an MLP takes at once: its inner rows are four times as wide as all else, and a picture, which is a chunk
of its own, may have 1,120."""


def _split_heads(x: mx.array, heads: int) -> mx.array:
    return x.reshape(*x.shape[:2], heads, -1)  # [B, L, H, Dh]


def _join_heads(x: mx.array) -> mx.array:
    return x.swapaxes(1, 2).reshape(x.shape[0], x.shape[2], -1)  # [B, L, H*Dh]


class SlidingAttention(nn.Module):
    """Attention over the last W positions, with keys and values of their own."""

    def __init__(self, config: TextConfig) -> None:
        super().__init__()
        heads, kv_heads, dims, hidden = (
            config.num_attention_heads,
            config.num_key_value_heads,
            config.head_dim,
            config.hidden_size,
        )
        self._heads, self._kv_heads, self._eps = heads, kv_heads, config.rms_norm_eps
        self.q_proj = nn.Linear(hidden, heads * dims, bias=False)
        self.k_proj = nn.Linear(hidden, kv_heads * dims, bias=False)
        self.v_proj = nn.Linear(hidden, kv_heads * dims, bias=False)
        self.o_proj = nn.Linear(heads * dims, hidden, bias=False)
        self.q_norm = nn.RMSNorm(dims, eps=config.rms_norm_eps)
        self.k_norm = nn.RMSNorm(dims, eps=config.rms_norm_eps)
        self._rope = Rope(dims, config.sliding_rope_theta, dims)

    def __call__(self, x: mx.array, cache: Cache, blocks: list[QueryBlock]) -> mx.array:
        assert isinstance(cache, SlidingCache)
        offset = cache.offset
        queries = self.q_norm(_split_heads(self.q_proj(x), self._heads)).swapaxes(1, 2)  # [B, H, L, Dh]
        keys = self.k_norm(_split_heads(self.k_proj(x), self._kv_heads)).swapaxes(1, 2)  # [B, K, L, Dh]
        values = mx.fast.rms_norm(_split_heads(self.v_proj(x), self._kv_heads), None, self._eps).swapaxes(1, 2)
        queries = self._rope(queries, offset)
        keys, values, first = cache.update(self._rope(keys, offset), values)
        outputs = []
        for block in blocks:
            view = slice(block.key_start - first, block.key_stop - first)
            outputs.append(
                mx.fast.scaled_dot_product_attention(
                    queries[:, :, block.start : block.stop],
                    keys[:, :, view],
                    values[:, :, view],
                    scale=1.0,
                    mask=block.mask,
                )
            )
            if len(blocks) > 2:
                mx.eval(outputs[-1])  # or all blocks of a large picture would hold their scores side by side
        return self.o_proj(_join_heads(mx.concatenate(outputs, axis=2)))


class FullAttention(nn.Module):
    """Attention over all positions; key and value share a row (`shared_rows.py`).

    `relayout` has brought the weights into that order when they come here; `q_norm.weight` holds the product of both
    norms on the shared dims, in float32 so that nothing is rounded twice.
    """

    def __init__(self, config: TextConfig) -> None:
        super().__init__()
        heads, kv_heads, dims, hidden = (
            config.num_attention_heads,
            config.num_global_key_value_heads,
            config.global_head_dim,
            config.hidden_size,
        )
        self._heads, self._kv_heads, self._rotated_dims = heads, kv_heads, config.rotated_dims
        self._eps = config.rms_norm_eps
        self.q_proj = nn.Linear(hidden, heads * dims, bias=False)
        self.k_proj = nn.Linear(hidden, kv_heads * dims, bias=False)
        self.o_proj = nn.Linear(heads * dims, hidden, bias=False)
        self.q_norm = nn.RMSNorm(dims, eps=config.rms_norm_eps)
        self.k_norm = nn.RMSNorm(dims, eps=config.rms_norm_eps)
        self._rope = Rope(config.rotated_dims, config.full_rope_theta, dims)
        self._output_order: mx.array | None = None

    @property
    def restores_output_order(self) -> bool:
        """Whether the columns of `o_proj` are in the checkpoint's order."""
        return self._output_order is not None

    def restore_output_order(self, order: mx.array) -> None:
        """From now on the attention's output is taken through `order` [H*Dh], as `o_proj` kept its columns."""
        self._output_order = order

    def __call__(self, x: mx.array, cache: Cache, blocks: list[QueryBlock]) -> mx.array:
        assert not isinstance(cache, SlidingCache)
        offset = cache.offset
        queries = self.q_norm(_split_heads(self.q_proj(x), self._heads)).swapaxes(1, 2)  # [B, H, L, Dh]
        queries = self._rope(queries.astype(x.dtype), offset)
        raw = _split_heads(self.k_proj(x), self._kv_heads).swapaxes(1, 2)  # [B, K, L, Dh]
        normed = mx.fast.rms_norm(raw, None, self._eps)
        turned = self._rope(self.k_norm(raw)[..., : self._rotated_dims], offset)  # [B, K, L, R]
        rows = make_rows(normed, turned)  # [B, K, L, Dh+R]
        if isinstance(cache, QuantizedCache):
            output = attend_packed_rows(queries, cache.update(rows), blocks)  # [B, H, L, Dh]
        else:
            output = attend_rows(queries, cache.update(rows), blocks)
        output = _join_heads(output)
        if self._output_order is not None:
            output = output[..., self._output_order]
        return self.o_proj(output)


@partial(mx.compile, shapeless=True)
def _gated(gate: mx.array, up: mx.array) -> mx.array:
    # torch's GELU rounds once, at its end; in bfloat16 all the way, 45 % of its values would differ by a last bit.
    return nn.gelu_approx(gate.astype(mx.float32)).astype(gate.dtype) * up


class MLP(nn.Module):
    def __init__(self, config: TextConfig) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(config.hidden_size, config.intermediate_size, bias=False)
        self.up_proj = nn.Linear(config.hidden_size, config.intermediate_size, bias=False)
        self.down_proj = nn.Linear(config.intermediate_size, config.hidden_size, bias=False)

    def __call__(self, x: mx.array) -> mx.array:
        if x.shape[1] <= MLP_TOKENS:
            return self.down_proj(_gated(self.gate_proj(x), self.up_proj(x)))
        parts = []
        for start in range(0, x.shape[1], MLP_TOKENS):
            parts.append(self(x[:, start : start + MLP_TOKENS]))
            mx.eval(parts[-1])
        return mx.concatenate(parts, axis=1)


class DecoderLayer(nn.Module):
    def __init__(self, config: TextConfig, index: int) -> None:
        super().__init__()
        hidden, eps = config.hidden_size, config.rms_norm_eps
        self.is_sliding = config.layer_types[index] == "sliding_attention"
        self.self_attn = SlidingAttention(config) if self.is_sliding else FullAttention(config)
        self.mlp = MLP(config)
        self.input_layernorm = nn.RMSNorm(hidden, eps=eps)
        self.post_attention_layernorm = nn.RMSNorm(hidden, eps=eps)
        self.pre_feedforward_layernorm = nn.RMSNorm(hidden, eps=eps)
        self.post_feedforward_layernorm = nn.RMSNorm(hidden, eps=eps)
        self.layer_scalar = mx.ones((1,))

    def __call__(self, x: mx.array, cache: Cache, blocks: list[QueryBlock]) -> mx.array:
        x = x + self.post_attention_layernorm(self.self_attn(self.input_layernorm(x), cache, blocks))
        x = x + self.post_feedforward_layernorm(self.mlp(self.pre_feedforward_layernorm(x)))
        return x * self.layer_scalar


class Decoder(nn.Module):
    """Token table, layers and the last norm."""

    def __init__(self, config: TextConfig) -> None:
        super().__init__()
        self._config = config
        self.embed_tokens = nn.Embedding(config.vocab_size, config.hidden_size)
        self.layers = [DecoderLayer(config, index) for index in range(config.num_hidden_layers)]
        self.norm = nn.RMSNorm(config.hidden_size, eps=config.rms_norm_eps)

    def make_caches(self, kv_bits: int | None = None) -> list[Cache]:
        """One empty cache per layer; with `kv_bits` 8 the full layers quantize their rows, or UsageError is raised."""
        config = self._config
        check_kv_bits(config, kv_bits)

        def full_cache() -> Cache:
            return FullCache() if kv_bits is None else QuantizedCache(config.global_head_dim, config.rotated_dims)

        return [SlidingCache(config.sliding_window) if layer.is_sliding else full_cache() for layer in self.layers]

    def __call__(
        self, x: mx.array, caches: list[Cache], images: Sequence[tuple[int, int]], block_sizes: BlockSizes
    ) -> mx.array:
        """Embeddings [B, L, D] at the caches' offset -> hidden states after the last norm, same shape.

        `images` are the (start, stop) positions of the images that lie in this chunk, whole.
        """
        return self.norm(self.through_layers(x, caches, images, block_sizes))

    def through_layers(
        self, x: mx.array, caches: list[Cache], images: Sequence[tuple[int, int]], block_sizes: BlockSizes
    ) -> mx.array:
        """The same without the last norm."""
        offset, length = caches[0].offset, x.shape[1]
        sliding = sliding_blocks(offset, length, self._config.sliding_window, images, block_sizes.sliding_tokens)
        full = full_blocks(offset, length, block_sizes)
        many_pairs = length > 1 and length * (offset + length) > LAZY_PAIRS
        for layer, cache in zip(self.layers, caches, strict=True):
            x = layer(x, cache, sliding if layer.is_sliding else full)
            if length > LAZY_TOKENS or (many_pairs and not layer.is_sliding):
                mx.eval(x, cache.state())
        return x
