from __future__ import annotations

import mlx.core as mx
import numpy as np
import pytest

from convert.packing import PackedRows, pack_rows, side_by_side
from convert.recipes import Packing
from convert.tally import Tally

GROUP = 64
BITS = [2, 3, 4, 5, 6, 8]
GROUPS = [32, 64, 128]


def _normal(rows: int, columns: int = 3840) -> mx.array:
    return mx.random.normal((rows, columns), key=mx.random.key(1)).astype(mx.bfloat16)


def _unpacked(packed: PackedRows, bits: int, group_size: int = GROUP) -> mx.array:
    scales, biases = packed.scales.astype(mx.float32), packed.biases.astype(mx.float32)
    return mx.dequantize(packed.codes, scales, biases, group_size=group_size, bits=bits)


def _relative_error(rows: mx.array, unpacked: mx.array) -> float:
    original = np.array(rows.astype(mx.float32), dtype=np.float64)
    return float(np.sqrt(np.square(np.array(unpacked) - original).sum() / np.square(original).sum()))


@pytest.mark.parametrize("group_size", GROUPS)
@pytest.mark.parametrize("bits", BITS)
def test_smaller_error_than_mx_quantize(bits: int, group_size: int) -> None:
    rows = _normal(256)
    theirs = PackedRows(*mx.quantize(rows, group_size=group_size, bits=bits), Tally())
    ours = pack_rows(rows, Packing(bits, group_size))
    error, their_error = (_relative_error(rows, _unpacked(packed, bits, group_size)) for packed in (ours, theirs))
    print(f"\n{bits} bits, group {group_size}: {error:.4f}, mx.quantize {their_error:.4f}")
    assert error < 0.985 * their_error
    assert ours.tally.relative_error == pytest.approx(error, rel=1e-5)


@pytest.mark.parametrize("bits", BITS)
def test_no_number_moves_by_more_than_half_a_step(bits: int) -> None:
    rows = _normal(64)
    packed = pack_rows(rows, Packing(bits, GROUP))
    moved = np.abs(np.array(_unpacked(packed, bits)) - np.array(rows.astype(mx.float32))).reshape(64, -1, GROUP)
    scales = np.array(packed.scales.astype(mx.float32))[..., None]
    biases = np.abs(np.array(packed.biases.astype(mx.float32)))[..., None]
    # bfloat16 has 8 significant bits, so rounding moves a number by at most 2**-8 of itself; the scale's error counts
    # at half the codes, because the bias is centred on the rounded scale.
    rounding = 2**-8 * (2 ** (bits - 1) * scales + biases)
    assert (moved <= scales / 2 + rounding + 1e-6).all()


@pytest.mark.parametrize("group_size", GROUPS)
@pytest.mark.parametrize("bits", BITS)
def test_codes_are_what_quantized_matmul_reads(bits: int, group_size: int) -> None:
    packed, x = pack_rows(_normal(64, 256), Packing(bits, group_size)), mx.random.normal((3, 256), key=mx.random.key(2))
    scales, biases = packed.scales.astype(mx.float32), packed.biases.astype(mx.float32)
    product = mx.quantized_matmul(x, packed.codes, scales, biases, group_size=group_size, bits=bits)
    assert mx.allclose(product, x @ _unpacked(packed, bits, group_size).T, atol=1e-3)


@pytest.mark.parametrize("group_size", GROUPS)
@pytest.mark.parametrize("bits", BITS)
def test_words_are_those_of_mx_quantize(bits: int, group_size: int) -> None:
    """Of whole numbers from 0 to the highest code, both in each group, MLX makes scale 1 and bias 0, or -1 and the
    highest: the codes are the numbers, or count down."""
    top = 2**bits - 1
    codes = mx.random.randint(0, top + 1, (16, 256), key=mx.random.key(3))
    codes[:, ::group_size], codes[:, 1::group_size] = 0, top
    words, scales, biases = mx.quantize(codes.astype(mx.float32), group_size=group_size, bits=bits)
    assert mx.array_equal(mx.dequantize(words, scales, biases, group_size=group_size, bits=bits), codes)
    stored = (codes - mx.repeat(biases, group_size, axis=1)) / mx.repeat(scales, group_size, axis=1)
    assert mx.array_equal(mx.array(side_by_side(np.array(stored.astype(mx.uint8)), bits)), words)


@pytest.mark.parametrize("bits", BITS)
def test_first_code_is_in_the_lowest_bits(bits: int) -> None:
    row = mx.zeros((1, GROUP))
    row[0, 1] = 1.0
    codes = int(pack_rows(row, Packing(bits, GROUP)).codes[0, 0].item())
    top = 2**bits - 1
    assert [codes >> bits * i & top for i in range(3)] == [0, top, 0]


@pytest.mark.parametrize("value", [0.0, 0.3125, -7.0])
def test_group_of_one_value_is_exact(value: float) -> None:
    rows = mx.full((2, GROUP), value, dtype=mx.bfloat16)
    packed = pack_rows(rows, Packing(4, GROUP))
    assert mx.array_equal(_unpacked(packed, 4), rows.astype(mx.float32))
    assert packed.tally.squared_error == 0.0
