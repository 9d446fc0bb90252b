"""One row for key and value on the full layers.

A full layer takes both from one projection: with n = rms(k_proj x), V = n and K = rope(w n), where w is the weight of
k_norm. Rope turns R of the D dims of a head (128 of 512, pairs (i, i + D/2) with i < R/2). On the others K is w V, so
w folds into the weight of the query's norm and the numbers need be stored once. With the dims ordered [rotated |
shared], once, when the model is loaded:

    row (D + R = 640)   [ rope(w n) 128 | n 384 | n 128 ]
                          rotated         shared  rotated
    K = row[:D]         [--------- 512 ---------]
    V = row[R:]                           [----- 512 -----]

K and V are overlapping views of one buffer: 10 KiB a token over 8 layers instead of 16. The order moves rows of
q_proj and k_proj, and columns of o_proj in whole blocks of R/2, which keeps quantized weights as they are, bit for
bit; where a quantization group is wider than such a block, the attention's output is put back in order instead.
"""

from __future__ import annotations

from collections.abc import Callable

import mlx.core as mx
import numpy as np
from numpy.typing import NDArray

from gemma_mlx.model.masks import QueryBlock


def key_order(head_dims: int, rotated_dims: int) -> NDArray[np.int_]:
    """Which dim of the checkpoint's head comes where in a query or key: [rotated | shared]."""
    half, turned = head_dims // 2, rotated_dims // 2
    first, second = np.arange(half), np.arange(half, head_dims)
    return np.concatenate([first[:turned], second[:turned], first[turned:], second[turned:]])


def value_order(head_dims: int, rotated_dims: int) -> NDArray[np.int_]:
    """Which dim of the checkpoint's head comes where in a value: [shared | rotated]."""
    return np.roll(key_order(head_dims, rotated_dims), -rotated_dims)


def over_heads(order: NDArray[np.int_], heads: int) -> NDArray[np.int_]:
    """`order` repeated for each of `heads` heads that lie one after the other."""
    return (np.arange(heads)[:, None] * len(order) + order[None, :]).reshape(-1)


def relayout(weights: dict[str, mx.array], heads: int, head_dims: int, rotated_dims: int) -> mx.array | None:
    """Brings the `weights` of one full layer's attention into the order above, in place.

    `weights` are named as in the checkpoint, without the layer's prefix; linears may be packed (`.scales`, `.biases`).
    Returns None where o_proj could follow, else the order [H * D] in which it wants the attention's output.
    """
    keys, values = key_order(head_dims, rotated_dims), value_order(head_dims, rotated_dims)
    for name in list(weights):
        module = name.split(".")[0]
        if module in ("q_proj", "k_proj"):
            of_heads = weights[name].shape[0] // head_dims
            weights[name] = weights[name][mx.array(over_heads(keys, of_heads))]
    q_weight, k_weight = (weights[f"{name}.weight"].astype(mx.float32)[mx.array(keys)] for name in ("q_norm", "k_norm"))
    shared = mx.arange(head_dims) >= rotated_dims
    weights["q_norm.weight"] = mx.where(shared, q_weight * k_weight, q_weight)
    weights["k_norm.weight"] = weights["k_norm.weight"][mx.array(keys)]

    columns = over_heads(values, heads)
    unit = 1
    if "o_proj.scales" in weights:  # columns move in whole quantization groups or not at all
        unit = len(columns) // weights["o_proj.scales"].shape[1]
        runs = columns.reshape(-1, unit)
        if (runs[:, 0] % unit).any() or (np.diff(runs, axis=1) != 1).any():
            return mx.array(np.argsort(columns))
    groups = mx.array(columns[::unit] // unit)
    for name in [name for name in weights if name.startswith("o_proj.")]:
        rows = weights[name].shape[0]
        grouped = weights[name].reshape(rows, len(columns) // unit, -1)  # [D, groups, words of a group]
        weights[name] = grouped[:, groups].reshape(rows, -1)
    return None


def make_rows(normed: mx.array, rotated_keys: mx.array) -> mx.array:
    """The cache rows [B, K, L, D + R] of `normed` [B, K, L, D] (in key order) and its turned keys [B, K, L, R]."""
    rotated_dims = rotated_keys.shape[-1]
    return mx.concatenate([rotated_keys, normed[..., rotated_dims:], normed[..., :rotated_dims]], axis=-1)


def attend_rows(queries: mx.array, rows: mx.array, blocks: list[QueryBlock]) -> mx.array:
    """Attention of `queries` [B, H, L, D] over `rows` [B, K, S, D + R]: [B, H, L, D], dims in value order."""
    dims = queries.shape[3]
    rotated_dims = rows.shape[3] - dims

    def scores(folded: mx.array, start: int, stop: int) -> mx.array:
        return folded @ rows[..., start:stop, :dims].swapaxes(-1, -2)

    def values(weights: mx.array, start: int, stop: int) -> mx.array:
        return weights @ rows[..., start:stop, rotated_dims:]

    return attend_blocks(queries, rows.shape[1], blocks, scores, values)


def attend_blocks(
    queries: mx.array,
    kv_heads: int,
    blocks: list[QueryBlock],
    scores_of: Callable[[mx.array, int, int], mx.array],
    values_of: Callable[[mx.array, int, int], mx.array],
) -> mx.array:
    """Attention of `queries` [B, H, L, D], block by block, over rows stored in any way; [B, H, L, D].

    `scores_of` takes folded queries [B, K, M, D] and the range of keys, and gives [B, K, M, S]; `values_of` takes
    weights of that shape and gives [B, K, M, D]. The query heads of a K/V head are folded into rows of one matrix, so
    that K is read once and never broadcast (on CPU the unfolded form copies it once per head).
    """
    batch, heads, _, dims = queries.shape
    outputs = []
    for block in blocks:
        length = block.stop - block.start
        folded = queries[:, :, block.start : block.stop].reshape(batch, kv_heads, -1, dims)  # [B, K, H/K*L, D]
        scores = scores_of(folded, block.key_start, block.key_stop)  # [B, K, H/K*L, S]
        if block.mask is not None:
            assert block.mask == "causal"
            scores = _causal(scores, length)
        weights = mx.softmax(scores, axis=-1, precise=True)
        del scores  # nobody else holds them when they are evaluated, so that softmax works in place
        output = values_of(weights, block.key_start, block.key_stop)
        del weights
        output = output.reshape(batch, heads, length, dims)  # [B, H, L, D]
        if len(blocks) > 1:
            mx.eval(output)  # or MLX would work on all blocks side by side, and hold the scores of every one
        outputs.append(output)
    return outputs[0] if len(outputs) == 1 else mx.concatenate(outputs, axis=2)


def _causal(scores: mx.array, length: int) -> mx.array:
    """`scores` [B, K, G*L, S] with the keys behind each query's position ruled out; the last query sees them all."""
    keys = scores.shape[-1]
    visible = mx.arange(keys)[None, :] <= mx.arange(keys - length, keys)[:, None]  # [L, S]
    unfolded = scores.reshape(*scores.shape[:2], -1, length, keys)  # [B, K, G, L, S]
    return mx.where(visible, unfolded, mx.array(mx.finfo(scores.dtype).min, scores.dtype)).reshape(scores.shape)
