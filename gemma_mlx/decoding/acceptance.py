"""How much of a draft comes out, and what comes after it. Both rules leave the target's choice what it was.

`matching` is for draws that are fixed before a draft is seen: the likeliest token, or a seeded draw. The target's own
tokens come out, whatever was drafted; a draft only saves the passes for those that it guessed. It is also the best rule
for a draft that is one guess and no distribution: such a guess is right as often as the target would draw it.

`speculative_sampling` is for a draft drawn from a distribution q: a token x is accepted with probability
min(1, p(x) / q(x)), and where one is refused, its place is drawn from max(p - q, 0). Then each place has exactly the
distribution p, and drafts are accepted as often as any exact rule can (Leviathan et al. 2023, algorithm 1).
"""

from __future__ import annotations

import mlx.core as mx


def matching(drafted: mx.array, chosen: mx.array) -> tuple[mx.array, mx.array]:
    """`drafted` ids [..., n] and the target's `chosen` ones [..., n + 1] -> tokens [..., n + 1], accepted count [...].

    Of the tokens, those up to and including index `accepted` come out.
    """
    return chosen, _leading(drafted == chosen[..., :-1])


def speculative_sampling(
    drafted: mx.array, p: mx.array, q: mx.array, keys: tuple[mx.array, mx.array]
) -> tuple[mx.array, mx.array]:
    """`drafted` ids [..., n], drawn from q [..., n, V]; the target's p [..., n + 1, V] -> tokens and count as above.

    p and q are probabilities after all filters. `keys` are two random keys that nothing else uses.
    """
    places = drafted[..., None]  # [..., n, 1]
    p_drafted = mx.take_along_axis(p[..., :-1, :], places, axis=-1)[..., 0]  # [..., n]
    q_drafted = mx.take_along_axis(q, places, axis=-1)[..., 0]
    accepted = _leading(mx.random.uniform(shape=drafted.shape, key=keys[0]) * q_drafted < p_drafted)  # [...]

    p_next = _row(p, accepted)  # [..., V]
    q_next = _row(mx.concatenate([q, mx.zeros_like(p[..., :1, :])], axis=-2), accepted)  # nothing refused: plain p
    residual = mx.maximum(p_next - q_next, 0)
    # Where rounding leaves nothing of p - q, the two are equal, and the draft was refused by that rounding alone.
    residual = mx.where(residual.sum(axis=-1, keepdims=True) > 0, residual, p_next)
    following = mx.random.categorical(mx.log(residual), key=keys[1])  # [...]
    padded = mx.concatenate([drafted, mx.zeros_like(drafted[..., :1])], axis=-1)  # [..., n + 1]
    tokens = mx.where(mx.arange(padded.shape[-1]) < accepted[..., None], padded, following[..., None])
    return tokens, accepted


def _leading(holds: mx.array) -> mx.array:
    """How many of [..., n] hold before the first that does not, [...]."""
    return mx.cumprod(holds.astype(mx.int32), axis=-1).sum(axis=-1)


def _row(rows: mx.array, index: mx.array) -> mx.array:
    """The row [..., V] of `rows` [..., n, V] that `index` [...] names."""
    return mx.take_along_axis(rows, index[..., None, None], axis=-2)[..., 0, :]
