"""Rounding with error feedback, as GPTQ does it: what rounding one column of a matrix changes in its outputs is made up
for in the columns to come.

Outputs are W x. With H = X^T X, the second moments of the inputs, an error E in W is E H E^T in the outputs. Where two
inputs go together, a column that became too large lets the other one be smaller. Of all that columns j, j + 1, ... can
still do, the best answer to an error in j is in row j of an upper triangle U with U^T U = H^-1:

    error    e = (w_j - q_j) / U_jj          q_j: what w_j is rounded to
    feedback w_k -= e U_jk                   for all k > j

Where the inputs have nothing to do with each other U is diagonal, nothing is fed back, and the codes are those of
`pack_rows`. Frantar et al., GPTQ: Accurate Post-Training Quantization for Generative Pre-trained Transformers, 2022.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import mlx.core as mx
import numpy as np
from numpy.typing import NDArray

from convert.packing import PackedRows, side_by_side, squares
from convert.recipes import Packing
from convert.rounding import Floats, round_groups
from convert.tally import Tally

DAMPING = 0.01
"""Of the mean second moment, added to each, so that their matrix has an inverse. An input that was always 0 has this
alone, so that its column is rounded for itself."""
LAZY_COLUMNS = 128
"""Columns whose errors reach those behind them at once, in one product; a whole number of groups of any size."""
ROWS_AT_ONCE = 1024
"""So many rows of LAZY_COLUMNS are half a megabyte, which stays in the processor's cache."""
JUDGED_ROWS = 256
"""Spread over a matrix."""

Fit = Callable[[mx.array, Packing, slice], tuple[mx.array, mx.array]]
"""Numbers [R, g] of the group in these columns -> its scale and bias, [R, 1]."""


@dataclass(frozen=True)
class Moments:
    """What is known of the inputs in some columns. Those outside of them have nothing to do with these."""

    columns: slice
    second: Floats
    """X^T X / N, [C, C]."""
    feedback: Floats
    """The upper triangle U [C, C]."""

    @staticmethod
    def of(columns: slice, second: Floats) -> Moments:
        """Damps and inverts `second`, in float64."""
        damped = second.astype(np.float64)
        damping = DAMPING * float(damped.diagonal().mean())
        damped[np.diag_indices_from(damped)] += damping or 1.0  # no input at all: every column for itself
        upper = np.linalg.cholesky(damped[::-1, ::-1])[::-1, ::-1]  # upper @ upper.T = damped
        return Moments(columns, second, np.linalg.inv(upper).astype(np.float32))


@dataclass(frozen=True)
class Rounded:
    """A matrix in codes."""

    codes: NDArray[np.uint8]
    """[R, C]."""
    scales: Floats
    """[R, C / group_size], each a bfloat16."""
    biases: Floats

    @property
    def numbers(self) -> Floats:
        """What the codes stand for, [R, C]."""
        row_count, groups = self.scales.shape
        found = self.codes.reshape(row_count, groups, -1).astype(np.float32)
        found *= self.scales[..., None]
        found += self.biases[..., None]
        return found.reshape(row_count, -1)

    @staticmethod
    def joined(parts: Sequence[Rounded], axis: int) -> Rounded:
        """`parts` under each other (axis 0) or side by side (1)."""
        columns = zip(*((part.codes, part.scales, part.biases) for part in parts), strict=True)
        codes, scales, biases = (np.concatenate(column, axis) for column in columns)
        return Rounded(codes, scales, biases)


def end_to_end(group: mx.array, packing: Packing, columns: slice) -> tuple[mx.array, mx.array]:
    """Scale and bias as `pack_rows` chooses them."""
    _, scale, bias = round_groups(group, packing)
    return scale, bias


def round_with_feedback(weight: Floats, moments: Sequence[Moments], packing: Packing, fit: Fit = end_to_end) -> Rounded:
    """`weight` [R, C] in codes. `moments` are those of all columns, in order."""
    slices = []
    for first in range(0, len(weight), ROWS_AT_ONCE):
        rows = weight[first : first + ROWS_AT_ONCE]
        blocks = [_rounded(rows[:, block.columns], block, packing, fit) for block in moments]
        slices.append(Rounded.joined(blocks, axis=1))
    return Rounded.joined(slices, axis=0)


def _rounded(rows: Floats, block: Moments, packing: Packing, fit: Fit) -> Rounded:
    left = np.array(rows.T, order="C")  # [C, R]: a column's numbers lie side by side, and change as errors come in
    codes = np.empty(left.shape, np.uint8)
    scales, biases = (np.empty((len(left) // packing.group_size, len(rows)), np.float32) for _ in range(2))
    for start in range(0, len(left), LAZY_COLUMNS):
        stop = min(start + LAZY_COLUMNS, len(left))
        errors = np.empty((stop - start, len(rows)), np.float32)
        for first in range(start, stop, packing.group_size):
            group = slice(first, first + packing.group_size)
            columns = slice(block.columns.start + group.start, block.columns.start + group.stop)
            scale, bias = (np.array(part)[:, 0] for part in fit(mx.array(left[group].T), packing, columns))
            scales[first // packing.group_size], biases[first // packing.group_size] = scale, bias
            for column in range(group.start, group.stop):
                codes[column] = _codes(left[column], scale, bias, packing)
                error = left[column] - (codes[column] * scale + bias)
                error /= block.feedback[column, column]
                left[column + 1 : stop] -= block.feedback[column, column + 1 : stop, None] * error
                errors[column - start] = error
        left[stop:] -= block.feedback[start:stop, stop:].T @ errors
    return Rounded(codes.T, scales.T, biases.T)


def _codes(numbers: Floats, scale: Floats, bias: Floats, packing: Packing) -> NDArray[np.uint8]:
    """As `round_groups`, for a scale and bias that are given."""
    places = (numbers - (bias - scale / 2)) / np.where(scale > 0, scale, 1)
    return np.clip(places, 0, 2**packing.bits - 1).astype(np.uint8)


def pack_with_feedback(weight: mx.array, moments: Sequence[Moments], packing: Packing) -> PackedRows:
    """Packs all rows of `weight` [R, C]. The tally has the error of the outputs, too, and that of plain rounding beside
    it, as JUDGED_ROWS of the rows show them."""
    numbers = np.array(weight, dtype=np.float32)
    found = round_with_feedback(numbers, moments, packing)
    codes = mx.array(side_by_side(np.ascontiguousarray(found.codes), packing.bits))
    scales, biases = (mx.array(part).astype(mx.bfloat16) for part in (found.scales, found.biases))
    mx.eval(codes, scales, biases)
    moved = found.numbers
    moved -= numbers
    every = max(1, len(numbers) // JUDGED_ROWS)
    tally = Tally(
        squared_error=squares(moved),
        squared_sum=squares(numbers),
        output_error=every * output_error(moved[::every], moments),
        plain_output_error=every * output_error(_moved_by_plain_rounding(numbers[::every], packing), moments),
        output_sum=every * output_error(numbers[::every], moments),
    )
    return PackedRows(codes, scales, biases, tally)


def _moved_by_plain_rounding(rows: Floats, packing: Packing) -> Floats:
    groups = mx.array(rows).reshape(len(rows), -1, packing.group_size)
    codes, scale, bias = round_groups(groups, packing)
    return np.array((codes * scale + bias - groups).reshape(rows.shape))


def output_error(moved: Floats, moments: Sequence[Moments]) -> float:
    """Mean squared change of the outputs, summed over them, where the matrix changes by `moved` [R, C]: tr(E H E^T)."""
    parts = ((moved[:, block.columns], block.second) for block in moments)
    return float(sum(np.einsum("rc,rc->r", part @ second, part).sum(dtype=np.float64) for part, second in parts))
