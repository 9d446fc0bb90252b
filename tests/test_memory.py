"""The plan against arithmetic done by hand for the released shapes, and against MLX's own counters on small models."""

from __future__ import annotations

import json
import shutil
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import mlx.core as mx
import numpy as np
import pytest

from assets.training.lattice import round_folder
from convert.conversion import convert_checkpoint
from convert.recipes import RECIPES, stored_by_recipe
from gemma_mlx import Gemma, load
from gemma_mlx.config import Config, parse_config, read_config
from gemma_mlx.decoding.session import Session
from gemma_mlx.errors import ContextError, UsageError
from gemma_mlx.home import miniature_folder
from gemma_mlx.inputs.image import ImagePatches
from gemma_mlx.inputs.media import MediaKind
from gemma_mlx.inputs.prompt import MediaSpan
from gemma_mlx.machine import Machine, mac
from gemma_mlx.memory import PACES, RELEASED_DRAFTER_BYTES, Planner, stored_numbers
from gemma_mlx.model.gemma4 import Gemma4
from gemma_mlx.soft_tokens import soft_tokens
from gemma_mlx.weights import load_model
from tests.allocations import exact_buffers, settled_bytes
from tests.convert import small_source
from tests.convert.lattice_source import trained_tensors

RELEASED = Path(__file__).parent / "golden" / "released_config.json"
LIMIT_16_GB = 11_453_246_122


def released(machine: Machine, **changes: Any) -> Planner:
    """The 12B at 4 bit, computed in bfloat16 as on a Mac."""
    config = parse_config(json.loads(RELEASED.read_text(encoding="utf-8")))
    stored = stored_by_recipe(Gemma4(config).shapes(), RECIPES["4bit"])
    return replace(Planner(config, stored, machine, mx.bfloat16), **changes)


def test_parts_of_the_released_model_are_as_counted_by_hand() -> None:
    plan = released(mac("16GB")).plan(262_144)
    assert plan.full_cache_bytes == 262_144 * 10_240
    assert plan.sliding_cache_bytes == 40 * 2 * (1023 + 64) * 8 * 256 * 2
    assert plan.snapshot_bytes == plan.pace.snapshots * 40 * 2 * 1023 * 8 * 256 * 2
    assert plan.limit_bytes == LIMIT_16_GB
    assert 6.8e9 < plan.weights_bytes < 6.81e9


def test_the_whole_context_fits_16_gb_unquantized_also_with_the_drafter() -> None:
    assert released(mac("16GB")).plan(262_144).fits
    assert released(mac("16GB"), drafter_bytes=RELEASED_DRAFTER_BYTES).plan(262_144).fits
    assert released(mac("16GB")).largest_context_tokens() == 262_144


def test_8_bit_rows_take_680_bytes_where_bfloat16_takes_1280() -> None:
    plans = [released(mac("16GB"), kv_bits=bits).plan(262_144) for bits in (None, 8)]
    assert [plan.full_cache_bytes / 262_144 / 8 for plan in plans] == [1280, 680]
    assert plans[0].sliding_cache_bytes == plans[1].sliding_cache_bytes


def test_scratch_is_as_counted_by_hand() -> None:
    """Of a picture of 1,120 tokens, the largest chunk: what attention takes, the MLP, and rows between layers."""
    metal, cpu = (replace(mac("64GB"), is_cpu=is_cpu) for is_cpu in (False, True))
    rest = 4 * 512 * 15_360 + 4 * 1120 * 3840
    sliding = 4 * 16 * 256 * (1023 + 512) + 6 * (1023 + 1120) * 8 * 256 + 1120 * (5 * 16 * 256 + 6 * 8 * 256)
    queries, scores, copies = 5 * 1120 * 16 * 512, 16 * 2**21, 2 * 262_144 * 512
    assert released(metal).plan(131_072).scratch_bytes == (rest + sliding) * 2
    assert released(metal).plan(262_144).scratch_bytes == 262_144 * 1280  # a cache of one layer that grows takes more
    assert released(cpu).plan(262_144).scratch_bytes == (rest + queries + scores + copies) * 2
    assert released(cpu, dtype=mx.float32).plan(262_144).scratch_bytes == (rest + queries + scores + copies) * 4
    assert released(metal, kv_bits=8).plan(131_072).scratch_bytes == (rest + queries + 7 * scores // 2) * 2


def machine_of(limit_bytes: int) -> Machine:
    return Machine("a machine", 2 * limit_bytes, limit_bytes)


def test_the_largest_context_fits_and_one_more_token_does_not() -> None:
    planner = released(machine_of(9_500_000_000))
    largest = planner.largest_context_tokens()
    assert 100_000 < largest < 262_144
    assert planner.plan(largest).fits
    assert not planner.plan(largest + 1).fits


def test_less_memory_takes_a_slower_pace_before_it_is_too_little() -> None:
    paces = []
    for limit_bytes in range(9_500_000_000, 7_500_000_000, -25_000_000):
        plan = released(machine_of(limit_bytes)).plan(32_768)
        if plan.fits:
            assert plan.total_bytes + 0.05 * limit_bytes <= limit_bytes + 1
            paces.append(plan.pace)
    taken = list(dict.fromkeys(paces))
    assert taken == [pace for pace in PACES if pace in taken]
    assert (taken[0], taken[-1]) == (PACES[0], PACES[-1])


def test_what_does_not_fit_is_refused_with_what_is_missing_and_what_would_fit() -> None:
    planner = released(machine_of(9_500_000_000))
    largest, packed = planner.largest_context_tokens(), replace(planner, kv_bits=8).largest_context_tokens()
    missing = planner.plan(262_144).missing_bytes
    with pytest.raises(ContextError) as refused:
        planner.require(262_144)
    message = str(refused.value)
    for told in (
        f"{missing / 1e9:.2f} GB are missing",
        f"{largest:,} tokens would fit",
        f"{packed:,} with --kv-bits 8",
    ):
        assert told in message
    assert planner.require().context_tokens == largest


def test_a_model_that_never_fits_is_refused_without_promises() -> None:
    with pytest.raises(ContextError, match=r"2\.\d\d GB are missing; convert the model to fewer bits"):
        released(mac("8GB")).require()


@pytest.mark.parametrize("context_tokens", [0, -5, 2.5, True, "4k"])
def test_a_context_that_is_no_count_is_refused(context_tokens: Any) -> None:
    with pytest.raises(UsageError, match="whole number"):
        load(miniature_folder(), context_tokens=context_tokens)


def test_more_positions_than_the_model_has_are_refused() -> None:
    with pytest.raises(ContextError, match="262,144 positions, not 262,145"):
        released(mac("64GB")).require(262_145)


def test_load_refuses_before_it_reads_a_weight(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(miniature_folder(), folder)
    weights = next(folder.glob("*.safetensors"))
    before = weights.stat().st_atime_ns, settled_bytes()
    with pytest.raises(ContextError, match="are missing"):
        load(folder, machine=machine_of(20_000_000))
    assert mx.get_active_memory() == before[1]


def test_limits_are_set_inside_and_restored_after_an_error(miniature: Gemma) -> None:
    before = mx.set_memory_limit(1 << 33), mx.set_cache_limit(1 << 31)
    try:
        with suppress(KeyError), miniature.plan.limits():
            inside = mx.set_memory_limit(1 << 40), mx.set_cache_limit(1 << 30)
            raise KeyError
        after = mx.set_memory_limit(before[0]), mx.set_cache_limit(before[1])
    finally:
        mx.set_memory_limit(before[0])
        mx.set_cache_limit(before[1])
    assert inside[0] == miniature.plan.limit_bytes
    assert inside[1] == 1 << 29
    assert after == (1 << 33, 1 << 31)


def test_limits_go_back_to_the_first_ones_in_whatever_order_plans_end(miniature: Gemma) -> None:
    before = mx.set_memory_limit(1 << 33)
    first, second = miniature.plan.limits(), replace(miniature.plan, context_tokens=1).limits()
    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)
    inside = mx.set_memory_limit(miniature.plan.limit_bytes)
    second.__exit__(None, None, None)
    assert (inside, mx.set_memory_limit(before)) == (miniature.plan.limit_bytes, 1 << 33)


def test_an_answer_works_within_the_limits_and_leaves_none_behind(miniature: Gemma) -> None:
    before = mx.set_memory_limit(1 << 33)
    answer = iter(miniature.stream([{"role": "user", "content": "Hello"}]))
    next(answer)
    inside = mx.set_memory_limit(miniature.plan.limit_bytes)
    del answer  # abandoned: the limits go back all the same
    after = mx.set_memory_limit(before)
    assert (inside, after) == (miniature.plan.limit_bytes, 1 << 33)


@pytest.mark.parametrize("recipe", RECIPES)
def test_a_recipe_is_planned_as_it_is_converted_and_loaded(tmp_path: Path, recipe: str) -> None:
    config = read_config(miniature_folder())
    source = miniature_folder()
    if recipe.startswith("qat"):
        round_folder(source, tmp_path / "trained for 4 bits")
        source = tmp_path / "trained for 4 bits"
    convert_checkpoint(source, tmp_path / recipe, recipe)
    planned = stored_by_recipe(Gemma4(config).shapes(), RECIPES[recipe])
    stored = stored_numbers(tmp_path / recipe)
    assert {name: count for name, count in planned.items() if count} == dict(stored)
    before_bytes = settled_bytes()
    with exact_buffers():
        gemma = load(tmp_path / recipe, dtype=mx.bfloat16)
    loaded_bytes = mx.get_active_memory() - before_bytes
    assert gemma.plan.weights_bytes == pytest.approx(loaded_bytes, rel=0.002)


def picture(start: int, tokens: int = 1120, kind: MediaKind = "image") -> MediaSpan:
    """A picture or frame of `tokens` soft tokens at position `start`, by default of the most."""
    patches, positions = np.zeros((tokens, 6912), dtype=np.float32), np.zeros((tokens, 2), dtype=np.int32)
    return MediaSpan(kind, start, tokens, ImagePatches(patches, positions, 48, 48, 48, 48), f"digest {start}")


LARGEST_PICTURE = [picture(1200)]
VIDEO = [picture(20 + 78 * index, 70, "video") for index in range(32)]


def test_embedding_a_picture_is_as_counted_by_hand() -> None:
    """Of 256 patches at once every array on the way, and the soft tokens of all 280."""
    single, half = (released(mac("16GB"), dtype=dtype).embedding_bytes(280) for dtype in (mx.float32, mx.bfloat16))
    assert single == 256 * (16 * 6912 + 44 * 3840) + 280 * 3840 * 4
    assert half == 256 * (24 * 6912 + 56 * 3840) + 280 * 3840 * 2


@pytest.mark.parametrize("dtype", [mx.float32, mx.bfloat16])
def test_embedding_a_picture_takes_what_is_planned(dtype: mx.Dtype) -> None:
    config = read_config(miniature_folder())
    planner, model = Planner(config, {}, mac("16GB"), dtype), load_model(miniature_folder(), config, dtype)
    numbers = mx.random.normal((700, 700))
    mx.eval(numbers)
    for tokens in (70, 280):
        [media] = soft_tokens(model, [picture(0, tokens)])
        settled_bytes()
        before_work = numbers @ numbers  # while the device is at it, MLX runs ahead, and nothing can be freed
        mx.async_eval(before_work)
        before_bytes = mx.get_active_memory()
        mx.reset_peak_memory()
        mx.eval(media.rows(0, tokens))
        peak_bytes = mx.get_peak_memory() - before_bytes
        assert peak_bytes <= planner.embedding_bytes(tokens)
        if mx.default_device() == mx.Device(mx.cpu):  # a norm is one kernel elsewhere
            assert planner.embedding_bytes(tokens) <= 1.1 * peak_bytes


@pytest.mark.parametrize(
    ("dtype", "kv_bits", "spans"),
    [
        (mx.float32, None, []),
        (mx.float32, None, LARGEST_PICTURE),
        (mx.float32, 8, LARGEST_PICTURE),
        (mx.float32, None, VIDEO),
        (mx.bfloat16, None, []),
    ],
)
def test_the_plan_covers_the_measured_peak(dtype: mx.Dtype, kv_bits: int | None, spans: list[MediaSpan]) -> None:
    gemma = load(miniature_folder(), context_tokens=2600, dtype=dtype, kv_bits=kv_bits)
    plan = gemma.plan
    before_bytes = settled_bytes() - plan.weights_bytes
    session = gemma.session()
    ids = [7] * (plan.context_tokens - 2)
    media = soft_tokens(gemma.model, spans)
    session.prefill(ids, media, stable_tokens=len(ids) - 3)
    mx.eval(gemma.model.logits(gemma.model(gemma.model.embed_tokens(mx.array([[7]])), session.caches)))
    peak_bytes = mx.get_peak_memory() - before_bytes
    assert session.nbytes <= plan.full_cache_bytes + plan.sliding_cache_bytes + plan.snapshot_bytes
    assert peak_bytes <= plan.total_bytes
    if spans is LARGEST_PICTURE:  # in a model so small, the largest picture is most of the plan
        assert plan.total_bytes <= 1.7 * peak_bytes


@pytest.mark.parametrize(("inner", "heads", "head_dim"), [(1024, 4, 32), (64, 16, 64)])
def test_the_plan_covers_float32_copies_beside_bfloat16(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, inner: int, heads: int, head_dim: int
) -> None:
    """In a model whose MLP, or whose attention, is most of a layer."""
    own = {"INNER": inner, "HEADS": heads, "HEAD_DIM": head_dim, "FULL_DIM": 2 * head_dim}
    for name, value in own.items():
        monkeypatch.setattr(small_source, name, value)
    changes = {"intermediate_size": inner, "num_attention_heads": heads, "head_dim": head_dim}
    for name, value in {**changes, "global_head_dim": 2 * head_dim}.items():
        monkeypatch.setitem(cast("dict[str, Any]", small_source.CONFIG["text_config"]), name, value)
    folder = tmp_path / "packed"
    convert_checkpoint(small_source.write_source(tmp_path / "source", trained_tensors()), folder, "qat-f32")
    config = read_config(folder)
    plan = Planner(config, stored_numbers(folder), replace(mac("16GB"), is_cpu=True), mx.bfloat16).plan(600)
    model = load_model(folder, config, mx.bfloat16)
    before_bytes = settled_bytes() - plan.weights_bytes
    Session(model).prefill([7] * 598)
    assert mx.get_peak_memory() - before_bytes <= plan.total_bytes


def test_a_planned_context_is_the_most_that_prompt_and_answer_take() -> None:
    gemma = load(miniature_folder(), context_tokens=30)
    with pytest.raises(ContextError, match=r"context planned \(of the model's 8,192\) is 30"):
        gemma.reply([{"role": "user", "content": "word " * 30}])
    reply = gemma.reply([{"role": "user", "content": "Hello"}], sampling=gemma.sampling(temperature=0), max_tokens=2000)
    assert reply.prompt_tokens + reply.generated_tokens <= 30


def test_caches_grow_one_layer_at_a_time(tiny_model: Gemma4, tiny_config: Config) -> None:
    text = tiny_config.text
    layer_bytes = [1024 * steps * text.row_dims * tiny_model.dtype.size for steps in (1, 2)]
    with exact_buffers():
        session = Session(tiny_model)
        session.prefill([5] * 1000)
        before_bytes = settled_bytes()
        for cache in session.caches:
            if hasattr(cache, "reserve"):
                cache.reserve(2048)
    grown_bytes = text.full_layers * (layer_bytes[1] - layer_bytes[0])
    assert mx.get_active_memory() - before_bytes == grown_bytes
    assert text.full_layers > 1
    assert mx.get_peak_memory() - before_bytes <= grown_bytes + layer_bytes[0] + 1024  # and a few scalars
