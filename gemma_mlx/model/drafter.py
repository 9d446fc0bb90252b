"""The draft head: a few small layers that guess the tokens after the next one from what the target has in memory.

Faithful to transformers' `Gemma4UnifiedAssistantForCausalLM` and `SinglePositionMultiTokenCandidateGenerator`. A round
of drafts starts when the target has cached the positions 0 .. p-1 and chosen the token of position p:

    step 1   target's embedding of token p,    target's hidden state of p-1 (after its last norm)  -> draft of p+1
    step 2   target's embedding of the draft,  post_projection's output of step 1                  -> draft of p+2
    ...

The layers have queries only. All steps of a round stand at position p and see the same rows: those that the target's
last sliding and last full layer hold of 0 .. p-1, on sliding layers the last W + 1 of them at most (as far as the
cache still has them, which is always W after a pass of the target). Nothing is written to the target's caches.
Logits are not capped. A placeholder of media keeps its own row of the token table here, as in the reference.
"""

from __future__ import annotations

from collections.abc import Callable

import mlx.core as mx
import mlx.nn as nn
import numpy as np
from mlx.utils import tree_flatten, tree_unflatten

from gemma_mlx.drafter_config import DrafterConfig
from gemma_mlx.model.cache import SlidingCache
from gemma_mlx.model.decoder import MLP, Cache, FullAttention
from gemma_mlx.model.gemma4 import Gemma4
from gemma_mlx.model.masks import QueryBlock
from gemma_mlx.model.quantized_cache import QuantizedCache, attend_packed_rows
from gemma_mlx.model.rope import Rope
from gemma_mlx.model.shared_rows import attend_rows, key_order, relayout


class SlidingQueries(nn.Module):
    """Attention over the last rows of the target's last sliding layer."""

    def __init__(self, config: DrafterConfig) -> None:
        super().__init__()
        text = config.text
        self._heads, self._seen_tokens = text.num_attention_heads, text.sliding_window + 1
        self.q_proj = nn.Linear(text.hidden_size, self._heads * text.head_dim, bias=False)
        self.o_proj = nn.Linear(self._heads * text.head_dim, text.hidden_size, bias=False)
        self.q_norm = nn.RMSNorm(text.head_dim, eps=text.rms_norm_eps)
        self._rope = Rope(text.head_dim, text.sliding_rope_theta, text.head_dim)

    def __call__(self, x: mx.array, cache: Cache) -> mx.array:
        assert isinstance(cache, SlidingCache)
        queries = self.q_norm(self.q_proj(x).reshape(1, 1, self._heads, -1)).swapaxes(1, 2)  # [1, H, 1, Dh]
        keys, values = cache.last(self._seen_tokens)
        output = mx.fast.scaled_dot_product_attention(self._rope(queries, cache.offset), keys, values, scale=1.0)
        return self.o_proj(output.reshape(1, 1, -1))  # [1, 1, D]


class FullQueries(nn.Module):
    """Attention over the shared rows of the target's last full layer, for which `fold` brings the weights in order."""

    def __init__(self, config: DrafterConfig) -> None:
        super().__init__()
        text = config.text
        self._heads, self._head_dim, self._rotated_dims = (
            text.num_attention_heads,
            text.global_head_dim,
            text.rotated_dims,
        )
        self.q_proj = nn.Linear(text.hidden_size, self._heads * self._head_dim, bias=False)
        self.o_proj = nn.Linear(self._heads * self._head_dim, text.hidden_size, bias=False)
        self.q_norm = nn.RMSNorm(self._head_dim, eps=text.rms_norm_eps)
        self._rope = Rope(text.rotated_dims, text.full_rope_theta, self._head_dim)
        self._output_order: mx.array | None = None

    def fold(self, k_norm: mx.array) -> None:
        """Prepares for rows of a layer whose k_norm has this weight, [Dh] in key order."""
        weights = dict(tree_flatten(self.parameters()))
        keys = key_order(self._head_dim, self._rotated_dims)
        weights["k_norm.weight"] = k_norm[mx.array(np.argsort(keys))]
        self._output_order = relayout(weights, self._heads, self._head_dim, self._rotated_dims)
        del weights["k_norm.weight"]
        self.update(tree_unflatten(list(weights.items())))
        mx.eval(list(weights.values()))

    def __call__(self, x: mx.array, cache: Cache) -> mx.array:
        assert not isinstance(cache, SlidingCache)
        queries = self.q_norm(self.q_proj(x).reshape(1, 1, self._heads, -1)).swapaxes(1, 2)  # [1, H, 1, Dh]
        queries = self._rope(queries.astype(x.dtype), cache.offset)
        everything = [QueryBlock(0, 1, 0, cache.offset, mask=None)]
        if isinstance(cache, QuantizedCache):
            output = attend_packed_rows(queries, cache.rows(), everything)
        else:
            output = attend_rows(queries, cache.rows(), everything)
        output = output.reshape(1, 1, -1)  # [1, 1, H*Dh]
        if self._output_order is not None:
            output = output[..., self._output_order]
        return self.o_proj(output)


class DrafterLayer(nn.Module):
    def __init__(self, config: DrafterConfig, index: int) -> None:
        super().__init__()
        hidden, eps = config.text.hidden_size, config.text.rms_norm_eps
        self.is_sliding = config.text.layer_types[index] == "sliding_attention"
        self.self_attn = SlidingQueries(config) if self.is_sliding else FullQueries(config)
        self.mlp = MLP(config.text)
        self.input_layernorm = nn.RMSNorm(hidden, eps=eps)
        self.post_attention_layernorm = nn.RMSNorm(hidden, eps=eps)
        self.pre_feedforward_layernorm = nn.RMSNorm(hidden, eps=eps)
        self.post_feedforward_layernorm = nn.RMSNorm(hidden, eps=eps)
        self.layer_scalar = mx.ones((1,))

    def __call__(self, x: mx.array, cache: Cache) -> mx.array:
        x = x + self.post_attention_layernorm(self.self_attn(self.input_layernorm(x), cache))
        x = x + self.post_feedforward_layernorm(self.mlp(self.pre_feedforward_layernorm(x)))
        return x * self.layer_scalar


class OrderedHead(nn.Module):
    """Logits for the tokens of the likeliest centroids; every other token gets 1 less than the least of them."""

    def __init__(self, config: DrafterConfig) -> None:
        super().__init__()
        self._top_k = config.centroid_intermediate_top_k
        self._shape = config.num_centroids, config.tokens_per_centroid
        self.centroids = nn.Linear(config.text.hidden_size, config.num_centroids, bias=False)
        self.token_ordering = mx.arange(config.text.vocab_size)

    def __call__(self, hidden: mx.array, embed_tokens: nn.Embedding) -> mx.array:
        """Hidden state [1, 1, D] -> logits [1, V]."""
        scores = self.centroids(hidden).reshape(-1)  # [centroids]
        likeliest = mx.argpartition(-scores, self._top_k - 1)[: self._top_k]
        ids = self.token_ordering.reshape(self._shape)[likeliest].reshape(-1)  # [k * tokens of a centroid]
        logits = embed_tokens(ids).astype(hidden.dtype) @ hidden.reshape(-1)
        others = mx.full(self.token_ordering.shape, logits.min() - 1, dtype=logits.dtype)  # [V]
        return mx.put_along_axis(others, ids, logits, axis=0)[None]


class Drafter(nn.Module):
    """The draft head of Gemma 4 12B, to be paired once with its target."""

    def __init__(self, config: DrafterConfig) -> None:
        super().__init__()
        text, backbone = config.text, config.backbone_hidden_size
        self.embed_tokens = nn.Embedding(text.vocab_size, text.hidden_size)
        self.pre_projection = nn.Linear(2 * backbone, text.hidden_size, bias=False)
        self.layers = [DrafterLayer(config, index) for index in range(text.num_hidden_layers)]
        self.norm = nn.RMSNorm(text.hidden_size, eps=text.rms_norm_eps)
        self.post_projection = nn.Linear(text.hidden_size, backbone, bias=False)
        if config.use_ordered_embeddings:
            self.masked_embedding = OrderedHead(config)
        self._is_ordered = config.use_ordered_embeddings
        self._sliding_layer = self._full_layer = -1
        self._embed: Callable[[mx.array], mx.array] | None = None

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """The shape of every tensor by its canonical name; nothing is computed for it."""
        return {name: tuple(array.shape) for name, array in dict(tree_flatten(self.parameters())).items()}

    def pair(self, target: Gemma4) -> None:
        """From now on this drafts for `target`, of which `require_target` has found that it has the right shape."""
        assert self._embed is None, "a drafter is folded for one target only"
        layers = target.language_model.layers
        for index, layer in enumerate(layers):
            if layer.is_sliding:
                self._sliding_layer = index
            else:
                self._full_layer = index
        last_full = layers[self._full_layer].self_attn
        assert isinstance(last_full, FullAttention)
        for own in self.layers:
            if isinstance(own.self_attn, FullQueries):
                own.self_attn.fold(last_full.k_norm.weight)
        self._embed = target.token_rows

    def step(self, ids: mx.array, hidden: mx.array, caches: list[Cache]) -> tuple[mx.array, mx.array]:
        """One draft, lazily.

        Takes the last token [1, 1], the state [1, 1, D of the target] that goes with it (see the top of this file) and
        the target's caches, which stay as they are. Returns the logits [1, V] of the token after it, and the state to
        go with whichever token is chosen from them.
        """
        assert self._embed is not None, "pair comes first"
        x = self.pre_projection(mx.concatenate([self._embed(ids), hidden], axis=-1))  # [1, 1, D]
        for layer in self.layers:
            x = layer(x, caches[self._sliding_layer if layer.is_sliding else self._full_layer])
        x = self.norm(x)
        if self._is_ordered:
            logits = self.masked_embedding(x, self.embed_tokens)
        else:
            logits = self.embed_tokens.as_linear(x)[:, 0]  # [1, V]
        return logits, self.post_projection(x)
