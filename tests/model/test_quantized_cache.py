"""Rows at 8 bit: attention over them is attention over what they stand for, and each row is quantized once."""

from __future__ import annotations

from dataclasses import replace

import mlx.core as mx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from benchmarks.kv_error import dequantized
from gemma_mlx import Gemma
from gemma_mlx.config import Config
from gemma_mlx.decoding.session import Session
from gemma_mlx.errors import UsageError
from gemma_mlx.model.cache import FullCache, RewindError, SlidingCache
from gemma_mlx.model.gemma4 import Gemma4
from gemma_mlx.model.masks import QueryBlock
from gemma_mlx.model.quantized_cache import (
    FEW_QUERIES,
    RUN_TOKENS,
    QuantizedCache,
    attend_packed_rows,
    group_size,
    row_bytes,
)
from gemma_mlx.model.shared_rows import attend_rows
from tests.allocations import settled_bytes

HEADS = 4
SHAPES = [(512, 128), (128, 32), (256, 64)]  # the 12B, the miniature, one more


def random_rows(tokens: int, dims: int, rotated_dims: int, kv_heads: int = 1, seed: int = 0) -> mx.array:
    return mx.random.normal((1, kv_heads, tokens, dims + rotated_dims), key=mx.random.key(seed))


def random_queries(length: int, dims: int, seed: int = 1) -> mx.array:
    return mx.random.normal((1, HEADS, length, dims), key=mx.random.key(seed)) * 4 / dims**0.5


def blocks_of(offset: int, length: int, block_tokens: int) -> list[QueryBlock]:
    cuts = [(start, min(start + block_tokens, length)) for start in range(0, length, block_tokens)]
    return [QueryBlock(start, stop, 0, offset + stop, "causal" if stop - start > 1 else None) for start, stop in cuts]


def largest(difference: mx.array) -> float:
    return float(np.abs(np.array(difference.astype(mx.float32))).max())


def bits(cache: QuantizedCache) -> list[NDArray[np.uint8]]:
    """The rows in use, byte for byte."""
    return [np.array(array[..., : cache.offset, :].view(mx.uint8)) for array in cache.state()]


@pytest.mark.parametrize(("dims", "rotated_dims"), SHAPES)
@pytest.mark.parametrize("kv_heads", [1, 2])
@pytest.mark.parametrize("block_tokens", [1, 3, 7, 256])
def test_attention_is_that_over_the_rows_dequantized(
    dims: int, rotated_dims: int, kv_heads: int, block_tokens: int
) -> None:
    tokens, length = 41, 7
    rows = QuantizedCache(dims, rotated_dims).update(random_rows(tokens, dims, rotated_dims, kv_heads))
    queries, blocks = random_queries(length, dims), blocks_of(tokens - length, length, block_tokens)
    found = attend_packed_rows(queries, rows, blocks)
    assert largest(found - attend_rows(queries, dequantized(rows), blocks)) < 1e-4


@pytest.mark.parametrize("tokens", [2 * RUN_TOKENS, 2 * RUN_TOKENS + 77, RUN_TOKENS + 1, RUN_TOKENS - 1])
@pytest.mark.parametrize("length", [1, FEW_QUERIES // HEADS, FEW_QUERIES // HEADS + 1])
def test_long_contexts_are_summed_in_runs_to_the_same(tokens: int, length: int) -> None:
    rows = QuantizedCache(64, 32).update(random_rows(tokens, 64, 32))
    queries, blocks = random_queries(length, 64), blocks_of(tokens - length, length, 256)
    found = attend_packed_rows(queries, rows, blocks)
    assert largest(found - attend_rows(queries, dequantized(rows), blocks)) < 1e-4


@pytest.mark.parametrize("dtype", [mx.float32, mx.bfloat16])
@pytest.mark.parametrize("tokens", [40, 2 * RUN_TOKENS + 5])
def test_everything_stays_in_the_computing_type(dtype: mx.Dtype, tokens: int) -> None:
    """Mixed types would make MLX convert every scale at every step."""
    cache = QuantizedCache(64, 32)
    rows = cache.update(random_rows(tokens, 64, 32).astype(dtype))
    assert {array.dtype for array in cache.state()} == {mx.uint32, dtype}
    found = attend_packed_rows(random_queries(2, 64).astype(dtype), rows, blocks_of(tokens - 2, 2, 4))
    assert found.dtype == dtype


def test_a_query_sees_no_key_behind_its_position() -> None:
    tokens, length = 30, 6
    rows = random_rows(tokens, 128, 32)
    queries, blocks = random_queries(length, 128), blocks_of(tokens - length, length, 4)
    found = attend_packed_rows(queries, QuantizedCache(128, 32).update(rows), blocks)
    for index in range(length):
        seen = tokens - length + index + 1
        alone = QuantizedCache(128, 32).update(rows[..., :seen, :])
        wanted = attend_packed_rows(queries[:, :, index : index + 1], alone, [QueryBlock(0, 1, 0, seen, None)])
        assert largest(found[:, :, index : index + 1] - wanted) < 1e-5


@pytest.mark.parametrize(("dtype", "most"), [(mx.float32, 0.0054), (mx.bfloat16, 0.0055)])
def test_rows_are_within_half_a_step(dtype: mx.Dtype, most: float) -> None:
    """In bfloat16 too, where `mx.quantize` errs by 0.0073, as it rounds scales that the codes rely on."""
    rows = random_rows(1000, 512, 128).astype(dtype)
    packed = QuantizedCache(512, 128).update(rows)
    assert {array.dtype for array in (*packed.shared[1:], *packed.raw[1:], *packed.rotated[1:])} == {dtype}
    wanted, found = np.array(rows.astype(mx.float32)), np.array(dequantized(packed))
    assert np.sqrt(((wanted - found) ** 2).mean() / (wanted**2).mean()) < most
    parts = [packed.rotated, packed.shared, packed.raw]
    steps = np.concatenate([np.repeat(np.array(part.scales.astype(mx.float32)), 64, -1) for part in parts], -1)
    inside = steps * (0.5 if dtype == mx.float32 else 1)  # rounded scales clip the ends
    assert (np.abs(wanted - found) <= inside + 1e-6).all()


def test_rows_of_equal_numbers_are_exact() -> None:
    rows = mx.full((1, 1, 3, 160), 0.75)
    assert largest(dequantized(QuantizedCache(128, 32).update(rows)) - rows) == 0


OPERATIONS = st.lists(st.one_of(st.integers(1, 9), st.integers(-6, -1)), max_size=12)


@settings(max_examples=40, deadline=None)
@given(operations=OPERATIONS)
def test_any_chunks_rewinds_and_replays_leave_the_same_bits(operations: list[int]) -> None:
    """A positive number updates by so many rows, a negative one rewinds."""
    rows, wrong = random_rows(120, 64, 32), random_rows(120, 64, 32, seed=9)
    cache = QuantizedCache(64, 32, step_tokens=4)
    for operation in operations:
        if operation < 0:
            cache.rewind(min(-operation, cache.offset))
            cache.update(wrong[..., :2, :])
            cache.rewind(2)
        else:
            cache.update(rows[..., cache.offset : cache.offset + operation, :])
    cache.update(rows[..., cache.offset : 110, :])
    once = QuantizedCache(64, 32)
    once.update(rows[..., :110, :])
    assert all((a == b).all() for a, b in zip(bits(cache), bits(once), strict=True))


def test_an_impossible_rewind_raises_and_changes_nothing() -> None:
    cache = QuantizedCache(64, 32)
    cache.update(random_rows(5, 64, 32))
    for tokens in (6, -1):
        with pytest.raises(RewindError, match=f"cannot rewind {tokens} tokens of 5"):
            cache.rewind(tokens)
    assert cache.offset == 5


def test_a_row_takes_the_bytes_that_are_planned(miniature: Gemma) -> None:
    text = miniature.config.text
    for dtype in (mx.float32, mx.bfloat16):
        cache = QuantizedCache(text.global_head_dim, text.rotated_dims, step_tokens=100)
        cache.update(random_rows(7, text.global_head_dim, text.rotated_dims).astype(dtype))
        assert cache.nbytes == 100 * row_bytes(text, dtype.size, 8)


def test_the_12b_keeps_680_bytes_a_token_and_layer(miniature: Gemma) -> None:
    text = replace(miniature.config.text, global_head_dim=512, partial_rotary_factor=0.25)
    assert [row_bytes(text, itemsize, kv_bits) for itemsize in (2, 4) for kv_bits in (8, None)] == [
        680,
        1280,
        720,
        2560,
    ]


def test_buffers_grow_in_steps_and_to_what_is_reserved_at_once() -> None:
    cache, row = QuantizedCache(64, 32), 96 + 2 * 4 * 3
    cache.reserve(1500)
    assert cache.nbytes == 0
    cache.update(random_rows(3, 64, 32))
    assert cache.nbytes == 2048 * row
    before = bits(cache)
    cache.reserve(2049)
    assert cache.nbytes == 3072 * row
    cache.reserve(10)
    assert cache.nbytes == 3072 * row
    assert all((a == b).all() for a, b in zip(before, bits(cache), strict=True))


@pytest.mark.parametrize("reserved_tokens", [0, 30])
def test_rows_in_use_refill_another_cache(reserved_tokens: int) -> None:
    rows, more, cache = random_rows(9, 64, 32), random_rows(4, 64, 32, seed=5), QuantizedCache(64, 32, step_tokens=8)
    cache.update(rows)
    cache.rewind(2)
    arrays = cache.rows_in_use()
    assert {name: (array.shape[2], array.dtype) for name, array in arrays.items()} == {
        f"{part}.{name}": (7, dtype)
        for part in ("rotated", "shared", "raw")
        for name, dtype in (("codes", mx.uint32), ("scales", mx.float32), ("biases", mx.float32))
    }
    copies = {name: mx.array(np.array(array)) for name, array in arrays.items()}
    other = QuantizedCache(64, 32, step_tokens=8)
    other.reserve(reserved_tokens)
    other.refill(7, copies)
    assert other.nbytes == max(8, -(-reserved_tokens // 8) * 8) * (96 + 2 * 4 * 3)
    cache.update(more)
    other.update(more)
    assert other.offset == 11
    assert all((a == b).all() for a, b in zip(bits(cache), bits(other), strict=True))


def test_a_refill_of_another_length_is_refused_and_changes_nothing() -> None:
    cache = QuantizedCache(64, 32)
    cache.update(random_rows(9, 64, 32))
    before = bits(cache)
    with pytest.raises(ValueError, match=r"rotated\.codes of a full layer has 9 rows, not 8"):
        cache.refill(8, cache.rows_in_use())
    assert cache.offset == 9
    assert all((a == b).all() for a, b in zip(before, bits(cache), strict=True))


def test_an_empty_cache_has_no_rows_in_use() -> None:
    assert QuantizedCache(64, 32).rows_in_use() == {}


def test_growth_holds_one_old_buffer_at_most() -> None:
    cache = QuantizedCache(64, 32)
    cache.update(random_rows(9000, 64, 32))
    mx.eval(cache.state())
    largest_bytes = max(array.nbytes for array in cache.state())
    active, nbytes = settled_bytes(), cache.nbytes
    cache.reserve(18_000)
    grown = cache.nbytes - nbytes
    assert mx.get_peak_memory() - active <= grown + largest_bytes + 100_000
    assert mx.get_active_memory() - active <= grown + 100_000


def test_rows_are_written_in_place() -> None:
    cache = QuantizedCache(64, 32)
    cache.reserve(20_000)
    cache.update(random_rows(3, 64, 32))
    row = random_rows(1, 64, 32)
    mx.eval(cache.state(), row)
    active = settled_bytes()
    cache.update(row)
    mx.eval(cache.state())
    assert mx.get_peak_memory() - active < 0.1 * cache.nbytes


@pytest.mark.parametrize(
    ("dims", "rotated_dims", "size"), [(512, 128, 64), (256, 64, 64), (128, 32, 32), (160, 64, 32)]
)
def test_the_largest_group_that_fits_is_taken(dims: int, rotated_dims: int, size: int) -> None:
    assert group_size(dims, rotated_dims) == size


@pytest.mark.parametrize(("dims", "rotated_dims"), [(32, 8), (128, 48), (96, 16)])
def test_parts_that_no_group_divides_are_refused(dims: int, rotated_dims: int) -> None:
    with pytest.raises(UsageError, match=f"{rotated_dims} rotated and {dims - rotated_dims} shared dims"):
        QuantizedCache(dims, rotated_dims)


def test_a_model_too_small_for_groups_refuses_8_bit_rows(tiny_model: Gemma4, tiny_config: Config) -> None:
    for refused in (lambda: tiny_model.make_caches(8), lambda: row_bytes(tiny_config.text, 2, 8)):
        with pytest.raises(UsageError, match="8 rotated and 24 shared dims") as raised:
            refused()
        assert "\n" not in str(raised.value)


@pytest.mark.parametrize("kv_bits", [0, 4, 16, -8])
def test_other_numbers_of_bits_are_refused(miniature: Gemma, kv_bits: int) -> None:
    with pytest.raises(UsageError, match=f"kv_bits is {kv_bits}; take 8"):
        miniature.model.make_caches(kv_bits)


def test_only_full_layers_are_quantized(miniature: Gemma) -> None:
    sliding = [name == "sliding_attention" for name in miniature.config.text.layer_types]
    for kv_bits, full in ((None, FullCache), (8, QuantizedCache)):
        kinds = [type(cache) for cache in miniature.model.make_caches(kv_bits)]
        assert kinds == [SlidingCache if slides else full for slides in sliding]


def test_a_session_goes_on_after_rewinds_as_a_cold_pass_does(miniature: Gemma) -> None:
    """A rewound and replayed session with 8-bit rows gives the hidden states of one pass with 8-bit rows."""
    ids = [3 + (7 * i) % 90 for i in range(120)]
    session = Session(miniature.model, chunk_tokens=16, kv_bits=8)
    session.prefill([*ids[:100], 5, 6, 7])
    found, reused = session.prefill(ids)
    assert reused == 100
    wanted, _ = Session(miniature.model, chunk_tokens=16, kv_bits=8).prefill(ids)
    plain, _ = Session(miniature.model, chunk_tokens=16).prefill(ids)
    assert largest(found - wanted) < 1e-3
    assert 1e-3 < largest(wanted - plain) < 1
