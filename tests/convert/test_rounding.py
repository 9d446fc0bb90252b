from __future__ import annotations

import mlx.core as mx
import numpy as np
import pytest

from convert.packing import pack_rows
from convert.recipes import Packing
from convert.rounding import bfloat16, lying_codes, on_host, round_groups, upright
from convert.tally import Tally

BITS = [2, 3, 4, 5, 6, 8]
GROUPS = [32, 64, 128]


def _normal(rows: int, dtype: mx.Dtype, seed: int = 1) -> mx.array:
    return mx.random.normal((rows, 256), key=mx.random.key(seed)).astype(dtype)


def _by_the_book(groups: mx.array, packing: Packing) -> tuple[mx.array, mx.array, mx.array]:
    """The same in MLX, group for group as it lies: codes [..., G], scales and biases [..., 1]."""

    def rounded(values: mx.array) -> mx.array:
        return values.astype(mx.bfloat16).astype(mx.float32)

    groups = groups.astype(mx.float32)
    low, high = groups.min(axis=-1, keepdims=True), groups.max(axis=-1, keepdims=True)
    levels = 2**packing.bits - 1
    scale = rounded((high - low) / (levels + 1 if 4 * (levels + 1) <= packing.group_size else levels))
    bias = rounded((low + high - levels * scale) / 2)
    places = (groups - (bias - scale / 2)) / mx.where(scale > 0, scale, 1)
    return mx.floor(mx.clip(places, 0, levels)), scale, bias


@pytest.mark.parametrize("dtype", [mx.bfloat16, mx.float32])
@pytest.mark.parametrize("group_size", GROUPS)
@pytest.mark.parametrize("bits", BITS)
def test_every_bit_is_that_of_the_plain_formula(bits: int, group_size: int, dtype: mx.Dtype) -> None:
    packing = Packing(bits, group_size)
    for size in (1.0, 1e-38, 1e37):  # in the middle, and where bfloat16 has its ends
        numbers = mx.array(np.array(_normal(16, mx.float32)) * np.float32(size))
        groups = numbers.astype(dtype, stream=mx.cpu).reshape(16, -1, group_size)
        with mx.stream(mx.cpu):  # GPUs take the smallest numbers for 0
            by_the_book = _by_the_book(groups, packing)
            mx.eval(by_the_book)
        for ours, plain in zip(round_groups(groups, packing), by_the_book, strict=True):
            assert ours.dtype == mx.float32
            assert mx.array_equal(ours.view(mx.uint32), plain.view(mx.uint32))


def test_groups_stand_side_by_side_four_numbers_wide() -> None:
    rows = mx.arange(128).reshape(2, 64)
    standing = upright(on_host(rows.astype(mx.bfloat16)), 32)
    assert standing.shape == (8, 16)
    assert standing[0].tolist() == [0, 1, 2, 3, 32, 33, 34, 35, 64, 65, 66, 67, 96, 97, 98, 99]
    assert standing[:, 0].tolist() == [0, 4, 8, 12, 16, 20, 24, 28]
    assert np.array_equal(standing, upright(on_host(rows.astype(mx.float32)), 32))
    assert lying_codes(standing).reshape(-1).tolist() == list(range(128))


@pytest.mark.parametrize("dtype", [mx.bfloat16, mx.float32])
def test_rows_need_not_lie_one_after_the_other(dtype: mx.Dtype) -> None:
    rows = _normal(9, dtype)
    for some in (rows[1::3], rows[2:5], mx.contiguous(rows.T).T):
        packed, copied = (
            pack_rows(some, Packing(4, 64)),
            pack_rows(mx.array(np.array(some.astype(mx.float32))), Packing(4, 64)),
        )
        assert mx.array_equal(packed.codes, copied.codes)
        assert mx.array_equal(packed.biases, copied.biases)


def test_rows_a_few_at_a_time_come_to_the_same() -> None:
    rows = _normal(7, mx.bfloat16)
    whole = pack_rows(rows, Packing(4, 64))
    parts = [pack_rows(rows[first : first + 3], Packing(4, 64)) for first in (0, 3, 6)]
    for name in ("codes", "scales", "biases"):
        assert mx.array_equal(getattr(whole, name), mx.concatenate([getattr(part, name) for part in parts]))
    tally = sum((part.tally for part in parts), Tally())
    assert tally.squared_error == pytest.approx(whole.tally.squared_error, rel=1e-6)
    assert tally.squared_sum == pytest.approx(whole.tally.squared_sum, rel=1e-6)


def test_zeros_of_both_signs_become_one() -> None:
    """Which of them is the least is for the processor to say; no byte may depend on it."""
    rows = mx.array(np.where(np.random.default_rng(1).random((8, 128)) < 0.5, 0.0, -0.0))
    packed = pack_rows(rows.astype(mx.bfloat16), Packing(4, 64))
    for part in (packed.codes, packed.scales.view(mx.uint16), packed.biases.view(mx.uint16)):
        assert not part.any()


def test_bfloat16_is_rounded_as_mlx_rounds() -> None:
    ties = np.array([0x3F808000, 0x3F818000, 0x3F808001, 0x00008000, 0x00018000, 0x7F7FFFFF], np.uint32)
    values = np.concatenate([ties.view(np.float32), np.random.default_rng(1).standard_normal(1000).astype(np.float32)])
    with mx.stream(mx.cpu):
        assert np.array_equal(bfloat16(values), np.array(mx.array(values).astype(mx.bfloat16).astype(mx.float32)))
