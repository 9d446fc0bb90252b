from __future__ import annotations

import mlx.core as mx
import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from convert import lattice
from convert.lattice import pack_lattice_rows, search_steps
from convert.packing import PackedRows
from convert.recipes import RECIPES, Packing
from tests.convert.lattice_source import trained, trained_matrix

ALL_LEVELS = np.array([*range(-8, 8), *range(-7, 8), 7], dtype=np.float32)


def _packing(recipe: str) -> Packing:
    packing = RECIPES[recipe].packing
    assert packing is not None
    return packing


def _levels(packed: PackedRows) -> NDArray[np.float32]:
    ones = mx.ones(packed.scales.shape)
    return np.array(mx.dequantize(packed.codes, ones, -8 * ones, group_size=32, bits=4))


def _rounded_to_bfloat16(packed: PackedRows) -> mx.array:
    scales, biases = packed.scales.astype(mx.float32), packed.biases.astype(mx.float32)
    return mx.dequantize(packed.codes, scales, biases, group_size=32, bits=4).astype(mx.bfloat16)


def _same(packed: PackedRows, released: mx.array) -> float:
    return float(np.array(_rounded_to_bfloat16(packed) == released).mean())


def _naive(rows: mx.array) -> mx.array:
    return mx.dequantize(*mx.quantize(rows, group_size=32, bits=4), group_size=32, bits=4)


@pytest.mark.parametrize("seed", range(3))
def test_levels_are_found_again_and_numbers_with_them(seed: int) -> None:
    original = trained_matrix(rows=512, columns=512, seed=seed)
    short, exact = (pack_lattice_rows(original.weights, _packing(recipe)) for recipe in ("qat", "qat-f32"))
    naive = float(np.array(_naive(original.weights) == original.weights).mean())
    print(
        f"\nsame in bfloat16: {_same(short, original.weights):.2%}, float32 scales {_same(exact, original.weights):.2%}"
    )
    print(f"mx.quantize {naive:.2%}")
    for packed in (short, exact):
        assert np.array_equal(_levels(packed), original.levels)
        assert (packed.tally.blocks, packed.tally.blocks_off_lattice) == (original.levels.size // 32, 0)
        assert packed.tally.same_numbers == round(_same(packed, original.weights) * original.levels.size)
    assert 0.89 < _same(short, original.weights) < 1
    assert 0 < short.tally.largest_deviation <= 2.0**-7
    assert _same(exact, original.weights) == 1
    assert exact.tally.largest_deviation == 0
    assert naive < 0.5


def test_scale_is_the_step_and_bias_eight_of_it() -> None:
    original = trained_matrix()
    for recipe, dtype, tolerance in (("qat", mx.bfloat16, 2.0**-8), ("qat-f32", mx.float32, 2.0**-9)):
        packed = pack_lattice_rows(original.weights, _packing(recipe))
        assert (packed.scales.dtype, packed.biases.dtype) == (dtype, dtype)
        scales = np.array(packed.scales.astype(mx.float32))
        assert np.abs(scales / original.steps[..., 0] - 1).max() < 2 * tolerance
        assert np.array_equal(np.array(packed.biases.astype(mx.float32)), -8 * scales)


@pytest.mark.parametrize("levels", [ALL_LEVELS, np.maximum(ALL_LEVELS, -7)])  # the extremum on -8, and on 7
@pytest.mark.parametrize("exponent", [-100, -6, 20])
def test_every_step_is_found(levels: NDArray[np.float32], exponent: int) -> None:
    """Every 97th float32 of a power of two; with all levels in the block, which bound the step most."""
    steps = (np.arange(0, 1 << 23, 97, dtype=np.uint32) | np.uint32((127 + exponent) << 23)).view(np.float32)
    rows = mx.array(steps[:, None] * levels).astype(mx.bfloat16)
    packed = pack_lattice_rows(rows, _packing("qat-f32"))
    assert packed.tally.blocks_off_lattice == 0
    assert np.array_equal(_levels(packed), np.broadcast_to(levels, rows.shape))
    codes, scales = mx.array(_levels(packed)) + 8, packed.scales
    unfused = codes * scales + packed.biases  # two roundings
    assert mx.array_equal(unfused.astype(mx.bfloat16), rows)


def _blocks(*numbers: float) -> NDArray[np.float32]:
    """A row for each number that it is filled up with."""
    row = np.zeros(32, dtype=np.float32)
    row[: len(numbers)] = numbers
    return row[None]


@pytest.mark.parametrize(
    "master",
    [
        _blocks(),
        _blocks(0.3),
        _blocks(-0.3),
        _blocks(-0.3, 0.3),
        _blocks(0.3, -0.299),
        _blocks(-1e-20, 1e-21),
        _blocks(-3e37, 1e37),
        np.full((1, 32), -0.7, dtype=np.float32),
        trained_matrix(1, 32, seed=5).levels * np.float32(1e-38),
    ],
    ids=["zeros", "one up", "one down", "both", "nearly both", "tiny", "huge", "equal", "below normal"],
)
def test_blocks_at_the_edge_are_exact(master: NDArray[np.float32]) -> None:
    original = trained(master)
    packed = pack_lattice_rows(original.weights, _packing("qat-f32"))
    assert packed.tally.blocks_off_lattice == 0
    assert mx.array_equal(_rounded_to_bfloat16(packed), original.weights)
    assert np.isfinite(np.array(packed.scales)).all()


def test_negative_zero_is_a_zero() -> None:
    rows = -mx.zeros((1, 32), dtype=mx.bfloat16)
    rows[0, 3] = -0.5
    packed = pack_lattice_rows(rows, _packing("qat"))
    assert (packed.tally.blocks_off_lattice, packed.tally.same_numbers) == (0, 32)


@pytest.mark.parametrize("level", range(1, 9))
def test_extremum_may_be_on_any_level(level: int) -> None:
    """A rule that takes another step than an eighth of the extremum leaves the outer levels empty."""
    levels = np.clip(ALL_LEVELS, -level, min(level, 7))
    rows = mx.array(np.float32(0.01234) * levels[None]).astype(mx.bfloat16)
    packed = pack_lattice_rows(rows, _packing("qat-f32"))
    assert packed.tally.blocks_off_lattice == 0
    assert mx.array_equal(_rounded_to_bfloat16(packed), rows)


@settings(deadline=None)
@given(
    st.lists(st.floats(-1, 1, width=32), min_size=32, max_size=32),
    st.floats(2.0**-120, 2.0**120, width=32),
)
def test_any_trained_block_is_exact(numbers: list[float], size: float) -> None:
    master = np.array([numbers], dtype=np.float32) * np.float32(size)
    assume(not master.any() or np.abs(master).max() >= 2.0**-126)
    original = trained(master)
    packed = pack_lattice_rows(original.weights, _packing("qat-f32"))
    assert packed.tally.blocks_off_lattice == 0
    assert mx.array_equal(_rounded_to_bfloat16(packed), original.weights)


@settings(deadline=None)
@given(st.lists(st.floats(-1, 1, width=32), min_size=32, max_size=32))
def test_a_block_that_is_said_to_be_on_the_lattice_is(numbers: list[float]) -> None:
    block = np.array(mx.array([numbers], dtype=mx.float32).astype(mx.bfloat16).astype(mx.float32))
    levels, steps, is_found = search_steps(block)
    assert (np.abs(levels + 0.5) <= 7.5).all()
    again = np.array(mx.array(levels * steps).astype(mx.bfloat16).astype(mx.float32))
    assert is_found[0, 0] == np.array_equal(again, block)


def test_both_ways_find_the_same() -> None:
    original = trained_matrix(64, 64)
    levels, steps, is_found = search_steps(np.array(original.weights.astype(mx.float32)).reshape(-1, 32))
    packed = pack_lattice_rows(original.weights, _packing("qat-f32"))
    assert is_found.all()
    assert np.array_equal(levels.reshape(64, 64), _levels(packed))
    assert np.allclose(steps.reshape(64, 2), np.array(packed.scales), rtol=2.0**-19)


def test_block_off_the_lattice_is_rounded_like_any_other_and_counted() -> None:
    original = trained_matrix(4, 64)
    rows = mx.array(original.weights)
    rows[2, 40] = rows[2, 40] + 0.03 * mx.abs(rows[2]).max()
    packed = pack_lattice_rows(rows, _packing("qat"))
    assert (packed.tally.blocks, packed.tally.blocks_off_lattice) == (8, 1)
    assert np.array_equal(
        np.delete(_levels(packed).reshape(8, 32), 5, axis=0), np.delete(original.levels.reshape(8, 32), 5, axis=0)
    )
    moved = mx.abs(_rounded_to_bfloat16(packed) - rows)[2, 32:].max().item()
    span = (rows[2, 32:].max() - rows[2, 32:].min()).item()
    assert moved <= 0.55 * span / 15


def test_pieces_of_a_matrix_come_to_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = mx.array(trained_matrix(rows=7, columns=64, seed=1).weights)
    whole = pack_lattice_rows(rows, _packing("qat"))
    monkeypatch.setattr(lattice, "PIECE_NUMBERS", 3 * 64)  # 3 + 3 + 1 rows
    pieces = pack_lattice_rows(rows, _packing("qat"))
    for name in ("codes", "scales", "biases"):
        assert mx.array_equal(getattr(pieces, name), getattr(whole, name))
    assert (pieces.tally.blocks, pieces.tally.same_numbers) == (14, whole.tally.same_numbers)


def test_tallies_add_up_and_keep_the_largest() -> None:
    original = trained_matrix(64, 64)
    whole = pack_lattice_rows(original.weights, _packing("qat")).tally
    parts = [
        pack_lattice_rows(original.weights[start : start + 16], _packing("qat")).tally for start in range(0, 64, 16)
    ]
    together = parts[0] + parts[1] + parts[2] + parts[3]
    assert together.same_numbers == whole.same_numbers
    assert together.blocks == whole.blocks
    assert together.largest_deviation == whole.largest_deviation == max(part.largest_deviation for part in parts)
    assert together.squared_error == pytest.approx(whole.squared_error)
    assert together.squared_error > max(part.squared_error for part in parts)
