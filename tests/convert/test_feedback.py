"""Rounding with error feedback."""

from __future__ import annotations

import mlx.core as mx
import numpy as np
import pytest

from convert import feedback
from convert.feedback import DAMPING, Moments, output_error, pack_with_feedback, round_with_feedback
from convert.packing import pack_rows
from convert.recipes import Packing
from convert.rounding import Floats

COLUMNS = 256
FIRST, LAST = slice(0, 128), slice(128, COLUMNS)


@pytest.fixture(scope="module")
def weight() -> mx.array:
    return mx.random.normal((48, COLUMNS), key=mx.random.key(1)).astype(mx.bfloat16).astype(mx.float32)


@pytest.fixture(scope="module")
def second() -> Floats:
    """Of inputs whose columns are unequal and go together; column 70 is always 0."""
    mixed = mx.random.normal((COLUMNS, COLUMNS), key=mx.random.key(2))
    inputs = mx.random.normal((1000, 40), key=mx.random.key(3)) @ mixed[:40] * mx.exp(mixed[0])
    inputs[:, 70] = 0
    return np.array(inputs.T @ inputs / 1000)


def whole(second: Floats) -> list[Moments]:
    return [Moments.of(slice(0, COLUMNS), second)]


def by_the_book(weight: Floats, second: Floats, packing: Packing) -> Floats:
    """What is stored for `weight`, in float64 and in no haste: after each column all others that are left move to where
    they answer best what was done so far, which is least squares over the moments."""
    damped = second.astype(np.float64) + DAMPING * np.diag(second).mean() * np.eye(COLUMNS)
    left, stored = weight.astype(np.float64), np.empty(weight.shape)
    for column in range(COLUMNS):
        if column % packing.group_size == 0:
            inside = slice(column, column + packing.group_size)
            packed = pack_rows(mx.array(left[:, inside].astype(np.float32)), packing)
            scale, bias = (np.array(part.astype(mx.float32))[:, 0] for part in (packed.scales, packed.biases))
        code = np.clip(np.floor((left[:, column] - bias) / scale + 0.5), 0, 2**packing.bits - 1)
        stored[:, column] = code * scale + bias
        error, behind = left[:, column] - stored[:, column], slice(column + 1, COLUMNS)
        if column + 1 < COLUMNS:
            answer = np.linalg.solve(damped[behind, behind], damped[behind, column])
            left[:, behind] += np.outer(error, answer)
    return stored


@pytest.mark.parametrize("packing", [Packing(4, 64), Packing(3, 32), Packing(6, 128)])
def test_it_is_what_least_squares_says_column_by_column(weight: mx.array, second: Floats, packing: Packing) -> None:
    """But for codes at the edge between two, which float32 and float64 may tell apart, and what follows from them."""
    numbers = np.array(weight)
    found, wanted = round_with_feedback(numbers, whole(second), packing).numbers, by_the_book(numbers, second, packing)
    assert (np.abs(found - wanted) < 1e-3).mean() > 0.97
    errors = [output_error((stored - numbers).astype(np.float32), whole(second)) for stored in (found, wanted)]
    assert errors[0] == pytest.approx(errors[1], rel=0.02)
    plain = np.array(pack_numbers(weight, packing)) - numbers
    assert errors[0] < 0.5 * output_error(plain, whole(second))


def pack_numbers(weight: mx.array, packing: Packing) -> mx.array:
    found = pack_rows(weight, packing)
    scales, biases = found.scales.astype(mx.float32), found.biases.astype(mx.float32)
    return mx.dequantize(found.codes, scales, biases, group_size=packing.group_size, bits=packing.bits)


@pytest.mark.parametrize(
    "second", [np.diag(np.arange(COLUMNS)).astype(np.float32), np.zeros((COLUMNS,) * 2, np.float32)]
)
def test_inputs_that_have_nothing_to_do_with_each_other_change_no_code(weight: mx.array, second: Floats) -> None:
    for packing in (Packing(4, 64), Packing(6, 32), Packing(2, 128)):
        found, plain = pack_with_feedback(weight, whole(second), packing), pack_rows(weight, packing)
        for name in ("codes", "scales", "biases"):
            assert mx.array_equal(getattr(found, name), getattr(plain, name))
        assert found.tally.squared_error == pytest.approx(plain.tally.squared_error)
        assert found.tally.output_error == pytest.approx(found.tally.plain_output_error)


def test_blocks_know_nothing_of_each_other(weight: mx.array, second: Floats) -> None:
    packing = Packing(4, 64)
    blocks = [Moments.of(columns, second[columns, columns]) for columns in (FIRST, LAST)]
    found = round_with_feedback(np.array(weight), blocks, packing).numbers
    for columns in (FIRST, LAST):
        alone = [Moments.of(slice(0, 128), second[columns, columns])]
        part = round_with_feedback(np.array(weight)[:, columns], alone, packing).numbers
        assert np.array_equal(found[:, columns], part)
    assert not np.array_equal(found, round_with_feedback(np.array(weight), whole(second), packing).numbers)


def test_rows_taken_at_once_change_nothing_that_counts(
    weight: mx.array, second: Floats, monkeypatch: pytest.MonkeyPatch
) -> None:
    together = pack_with_feedback(weight, whole(second), Packing(4, 64))
    monkeypatch.setattr(feedback, "ROWS_AT_ONCE", 20)
    apart = pack_with_feedback(weight, whole(second), Packing(4, 64))
    assert apart.codes.shape == together.codes.shape
    assert apart.tally.output_error == pytest.approx(together.tally.output_error, rel=0.02)


def test_the_tally_is_of_the_numbers_that_are_stored(weight: mx.array, second: Floats) -> None:
    packing = Packing(4, 64)
    found = pack_with_feedback(weight, whole(second), packing)
    scales, biases = found.scales.astype(mx.float32), found.biases.astype(mx.float32)
    stored = mx.dequantize(found.codes, scales, biases, group_size=64, bits=4)
    moved, plain = (np.array(numbers - weight, np.float64) for numbers in (stored, pack_numbers(weight, packing)))
    assert found.tally.squared_error == pytest.approx((moved**2).sum(), rel=1e-5)
    for moves, told in ((moved, found.tally.output_error), (plain, found.tally.plain_output_error)):
        assert told == pytest.approx(np.trace(moves @ second.astype(np.float64) @ moves.T), rel=1e-4)
    numbers = np.array(weight, np.float64)
    assert found.tally.output_sum == pytest.approx(np.trace(numbers @ second @ numbers.T), rel=1e-4)
    assert found.tally.relative_output_error < 0.5 * found.tally.plain_relative_output_error
    assert found.tally.relative_error > pack_rows(weight, packing).tally.relative_error
