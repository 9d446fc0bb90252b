"""Ways to round a matrix to few bits at equal size, beside the one of `convert/rounding.py`. Of all of them
`convert` has but `feedback`, for those who give it a calibration.

Each takes numbers [R, C] and the second moments of what they are multiplied with, X^T X / n [C, C], and returns what
the packed matrix would stand for. Scale and bias are bfloat16 wherever they come from.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import cast

import mlx.core as mx
import numpy as np

from convert.feedback import Fit, Moments, end_to_end, round_with_feedback
from convert.recipes import Packing
from convert.rounding import round_groups

Rule = Callable[[mx.array, mx.array, Packing], mx.array]
Groups = tuple[mx.array, mx.array, mx.array]
"""Codes [R, G, g], scales and biases [R, G, 1]."""

REFITS = 3
SHRUNKEN = (1.0, 0.96, 0.92, 0.88, 0.84, 0.8, 0.76, 0.72, 0.68)
"""Parts of a group's range that the codes may span."""
POWERS = tuple(power / 10 for power in range(11))
"""Of a channel's RMS, to be its scale; 0 scales nothing."""


def plain(weight: mx.array, moments: mx.array, packing: Packing) -> mx.array:
    """As `gemma-mlx convert` does: from end to end of each group."""
    codes, scale, bias = round_groups(_grouped(weight, packing), packing)
    return (codes * scale + bias).reshape(weight.shape)


def refit(weight: mx.array, moments: mx.array, packing: Packing) -> mx.array:
    """Scale and bias fitted to the codes by least squares, and codes made for these, in turns."""
    groups = _grouped(weight, packing)
    return _numbers(_refitted(groups, None, packing, round_groups(groups, packing)), weight)


def search(weight: mx.array, moments: mx.array, packing: Packing) -> mx.array:
    """The same from the best of several shrunken ranges."""
    groups = _grouped(weight, packing)
    return _numbers(_refitted(groups, None, packing, _shrunken(groups, None, packing)), weight)


def weighted(weight: mx.array, moments: mx.array, packing: Packing) -> mx.array:
    """The same with the error of each column weighted by its mean squared input."""
    return _numbers(_fitted_weighted(_grouped(weight, packing), mx.diag(moments), packing), weight)


def feedback(weight: mx.array, moments: mx.array, packing: Packing) -> mx.array:
    """As GPTQ: column after column, what rounding one changes in the outputs is made up for in those to come."""
    return _with_feedback(weight, moments, packing, end_to_end)


def feedback_in_groups(weight: mx.array, moments: mx.array, packing: Packing) -> mx.array:
    """The same with what is to come in the same group alone: of the moments, blocks of a group's width suffice."""
    size = packing.group_size
    same_group = np.kron(np.eye(weight.shape[1] // size, dtype=np.float32), np.ones((size, size), dtype=np.float32))
    return feedback(weight, moments * mx.array(same_group), packing)


def weighted_feedback(weight: mx.array, moments: mx.array, packing: Packing) -> mx.array:
    """As `feedback`, with scales and biases of `weighted`."""
    mean_squares = mx.diag(moments)

    def fit(group: mx.array, packing: Packing, columns: slice) -> tuple[mx.array, mx.array]:
        _, scale, bias = _fitted_weighted(group[:, None], mean_squares[columns], packing)
        return scale[:, 0], bias[:, 0]

    return _with_feedback(weight, moments, packing, fit)


def _grouped(weight: mx.array, packing: Packing) -> mx.array:
    return weight.reshape(weight.shape[0], -1, packing.group_size)  # [R, G, g]


def _numbers(found: Groups, like: mx.array) -> mx.array:
    codes, scale, bias = found
    return (codes * scale + bias).reshape(like.shape)


def _rounded(values: mx.array) -> mx.array:
    return values.astype(mx.bfloat16).astype(mx.float32)


def _codes(groups: mx.array, scale: mx.array, bias: mx.array, levels: int) -> mx.array:
    return mx.clip(mx.round((groups - bias) / mx.where(scale > 0, scale, 1)), 0, levels)


def _errors(groups: mx.array, importance: mx.array | None, found: Groups) -> mx.array:
    """Of each group, [R, G, 1]."""
    codes, scale, bias = found
    squares = mx.square(codes * scale + bias - groups)
    return (squares if importance is None else squares * importance).sum(axis=-1, keepdims=True)


def _better(groups: mx.array, importance: mx.array | None, known: Groups, other: Groups) -> Groups:
    """Of each group the one with the smaller error."""
    wins = _errors(groups, importance, other) < _errors(groups, importance, known)
    codes, scale, bias = (mx.where(wins, new, old) for new, old in zip(other, known, strict=True))
    return codes, scale, bias


def _shrunken(groups: mx.array, importance: mx.array | None, packing: Packing) -> Groups:
    levels = 2**packing.bits - 1
    low, high = groups.min(axis=-1, keepdims=True), groups.max(axis=-1, keepdims=True)
    best = round_groups(groups, packing)
    for part in SHRUNKEN:
        scale = _rounded((high - low) * part / levels)
        bias = _rounded((low + high - levels * scale) / 2)
        best = _better(groups, importance, best, (_codes(groups, scale, bias, levels), scale, bias))
    return best


def _refitted(groups: mx.array, importance: mx.array | None, packing: Packing, start: Groups) -> Groups:
    """`start` or better."""
    levels = 2**packing.bits - 1
    weights = mx.ones_like(groups) if importance is None else mx.broadcast_to(importance, groups.shape)
    total = weights.sum(axis=-1, keepdims=True)
    numbers = (weights * groups).sum(axis=-1, keepdims=True)
    best = start
    for _ in range(REFITS):
        codes = best[0]
        sums = (weights * codes).sum(axis=-1, keepdims=True)
        squares = (weights * codes * codes).sum(axis=-1, keepdims=True)
        products = (weights * codes * groups).sum(axis=-1, keepdims=True)
        spread = total * squares - sums * sums
        scale = _rounded((total * products - sums * numbers) / mx.where(spread > 0, spread, 1))
        bias = _rounded((numbers - sums * scale) / mx.where(total > 0, total, 1))
        best = _better(groups, importance, best, (_codes(groups, scale, bias, levels), scale, bias))
    return best


def _fitted_weighted(groups: mx.array, mean_squares: mx.array, packing: Packing) -> Groups:
    importance = mean_squares.reshape(1, -1, packing.group_size)
    return _refitted(groups, importance, packing, _shrunken(groups, importance, packing))


def _with_feedback(weight: mx.array, moments: mx.array, packing: Packing, fit: Fit) -> mx.array:
    every_column = Moments.of(slice(0, weight.shape[1]), np.array(moments))
    return mx.array(round_with_feedback(np.array(weight), [every_column], packing, fit).numbers)


def output_error(weight: mx.array, stored: mx.array, moments: mx.array) -> float:
    """Mean squared change of the outputs: trace(E M E^T)."""
    moved = stored - weight
    return cast("float", ((moved @ moments) * moved).sum().item())


def channel_scales(
    weights: Sequence[mx.array], moments: mx.array, norm: mx.array | None, rounded: Callable[[mx.array], mx.array]
) -> mx.array:
    """As AWQ: what the columns [C] of `weights`, which share an input, are multiplied with before `rounded` takes
    them: the power of the input's RMS that leaves the smallest error in the outputs.

    The input is divided by it. Where `norm` is the weight [C] of a norm before, it folds into that, in bfloat16: the
    scale is then what that makes of it, and nothing else changes.
    """
    rms = mx.sqrt(mx.maximum(mx.diag(moments), 1e-12))
    best, least = mx.ones_like(rms), float("inf")
    for power in POWERS:
        scale = rms**power
        scale = scale / mx.exp(mx.log(scale).mean())
        if norm is not None:
            folded = _rounded(norm / scale)
            scale = mx.where(folded == 0, 1, norm / mx.where(folded == 0, 1, folded))
        error = sum(output_error(weight, rounded(weight * scale) / scale, moments) for weight in weights)
        if error < least:
            best, least = scale, error
    return best


MATRIX_RULES: dict[str, Rule] = {
    "plain": plain,
    "refit": refit,
    "search": search,
    "weighted search": weighted,
    "feedback in groups": feedback_in_groups,
    "feedback": feedback,
    "feedback, weighted search": weighted_feedback,
}
