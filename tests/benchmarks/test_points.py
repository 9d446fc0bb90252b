from __future__ import annotations

import math
import subprocess
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any, ClassVar

import mlx.core as mx
import pytest

from benchmarks.child import measure_point
from benchmarks.memory import PlannedPoint, Series, plan_series, planned_machine
from benchmarks.memory_point import OwnModel
from benchmarks.point import PointSettings, measure
from convert.conversion import convert_checkpoint
from gemma_mlx.config import Config, read_config
from gemma_mlx.errors import UsageError
from gemma_mlx.home import miniature_folder
from gemma_mlx.loader import runnable_adapter
from gemma_mlx.memory import Planner, stored_numbers
from gemma_mlx.model.gemma4 import Gemma4
from tests.adapters.miniature import write_adapter
from tests.allocations import exact_buffers, settled_bytes


@pytest.fixture
def settings(tiny_folder: Path) -> PointSettings:
    return PointSettings(
        folder=str(tiny_folder),
        adapter=None,
        context_tokens=2048,
        layout="shared",
        dtype="float32",
        kv_bits=None,
        decode_tokens=3,
        prefill_tokens=32,
        snapshots=0,
        block_sizes={},
        seed=1,
    )


@pytest.mark.parametrize("layout", ["shared", "plain"])
def test_a_point_ends_exactly_at_its_context(settings: PointSettings, layout: str) -> None:
    runners = []

    def load(given: PointSettings) -> OwnModel:
        runners.append(OwnModel(given))
        return runners[0]

    *_, found = measure(load, replace(settings, layout=layout))
    assert {cache.offset for cache in runners[0]._caches} == {2048}
    assert found["peak_bytes"] == max(found["decode_peak_bytes"], found["prefill_peak_bytes"])
    assert found["peak_bytes"] > found["active_bytes"] > sum(cache.nbytes for cache in runners[0]._caches)


def test_the_plain_layout_holds_more_by_its_wider_rows(settings: PointSettings, tiny_config: Config) -> None:
    text = tiny_config.text
    wider = 2 * text.global_head_dim - text.row_dims
    more_bytes = held_bytes(replace(settings, layout="plain")) - held_bytes(settings)
    assert abs(more_bytes - 2048 * text.full_layers * wider * 4) < 100


def test_snapshots_are_held_for_real(settings: PointSettings, tiny_config: Config) -> None:
    text = tiny_config.text
    one = text.sliding_layers * 2 * text.num_key_value_heads * text.head_dim * (text.sliding_window - 1) * 4
    more_bytes = held_bytes(replace(settings, snapshots=3)) - held_bytes(settings)
    assert abs(more_bytes - 3 * one) < 100


def held_bytes(settings: PointSettings) -> int:
    """What the model and its caches take while a point is measured."""
    with exact_buffers():
        before_bytes = settled_bytes()
        return int(next(measure(OwnModel, settings))["active_bytes"]) - before_bytes


def test_a_process_that_fails_is_a_point_with_its_reason(settings: PointSettings, tmp_path: Path) -> None:
    found = measure_point(PlannedPoint(replace(settings, folder=str(tmp_path)), 1000, True))
    assert "config.json" in found["error"]
    assert (found["context_tokens"], found["layout"], found["planned_bytes"]) == (2048, "shared", 1000)
    assert found["peak_bytes"] is None


class Started(subprocess.Popen[str]):
    """A process that can be found again."""

    last: ClassVar[Started]

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        Started.last = self


def test_a_process_that_is_killed_has_told_what_it_had_measured(
    settings: PointSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(subprocess, "Popen", Started)

    def kill(phase: str) -> None:
        if phase == "decoding":
            assert "benchmarks.memory_point" in Started.last.args
            Started.last.kill()

    found = measure_point(PlannedPoint(replace(settings, decode_tokens=2000), None, None), kill)
    assert found["error"] == "killed: out of memory, most likely (decoding)"
    assert found["active_bytes"] > 0
    assert found["peak_bytes"] is None


def test_plain_rows_are_planned_with_two_tensors_as_wide_as_a_head(tiny_folder: Path, tiny_config: Config) -> None:
    series = Series(tiny_folder, contexts=[2048, 4096], layouts=["plain"], dtype="bfloat16", prefill_tokens=0)
    short, long = (point.planned_bytes or 0 for point in plan_series(series))
    text = tiny_config.text
    scores_bytes = 2 * text.num_attention_heads * 2048 * 2
    assert long - short == 2048 * text.full_layers * 2 * text.global_head_dim * 2 + scores_bytes


@pytest.mark.parametrize("layout", ["shared", "plain"])
def test_an_adapter_is_planned_in_either_layout(tmp_path: Path, layout: str) -> None:
    adapter = runnable_adapter(write_adapter(tmp_path / "adapter"), read_config(miniature_folder()))
    assert adapter is not None
    series = Series(miniature_folder(), contexts=[1024], layouts=[layout], dtype="float32", prefill_tokens=0)
    [without], [planned] = plan_series(series), plan_series(replace(series, adapter=adapter))
    machine, config = planned_machine(series), read_config(miniature_folder())
    stored = stored_numbers(miniature_folder())
    plain, counted = (
        Planner(config, stored, machine, mx.float32, None, adapter_bytes=nbytes).plan(1024)
        for nbytes in (0, adapter.nbytes(4))
    )
    passes_bytes = counted.scratch_bytes - plain.scratch_bytes if layout == "shared" else 0
    more_bytes = (planned.planned_bytes or 0) - (without.planned_bytes or 0)
    assert more_bytes == adapter.nbytes(4) + passes_bytes > 0


def test_tensors_that_an_adapter_brings_whole_are_planned_and_held_as_they_are(tmp_path: Path) -> None:
    packed, adapter_folder = tmp_path / "packed", tmp_path / "adapter"
    convert_checkpoint(miniature_folder(), packed, "4bit")
    name = "language_model.layers.0.mlp.down_proj.weight"
    shape = Gemma4(read_config(packed)).shapes()[name]
    adapter_folder.mkdir()
    stored = name.replace("language_model.", "language_model.model.")
    mx.save_safetensors(str(adapter_folder / "adapters.safetensors"), {stored: mx.ones(shape)})
    (adapter_folder / "adapter_config.json").write_text('{"fine_tune_type": "full", "num_layers": 1}')
    series = Series(packed, contexts=[256], layouts=["shared"], dtype="float32", prefill_tokens=0)
    adapter = runnable_adapter(adapter_folder, read_config(packed))
    points = [plan_series(one)[0] for one in (series, replace(series, adapter=adapter))]
    whole_bytes, packed_bytes = 4 * math.prod(shape), math.prod(shape) * 4 // 8 + 2 * 4 * math.prod(shape) // 64
    without, planned = (point.planned_bytes or 0 for point in points)
    assert planned - without == pytest.approx(whole_bytes - packed_bytes, rel=0.1)
    measured_bytes = [measure_point(point)["active_bytes"] for point in points]
    assert measured_bytes[1] - measured_bytes[0] == pytest.approx(whole_bytes - packed_bytes, rel=0.1)


def test_without_contexts_the_series_ends_at_the_models_own() -> None:
    points = plan_series(Series(miniature_folder(), layouts=["shared"]))
    assert [point.settings.context_tokens for point in points] == [4096, 8192]


def test_kv_bits_with_the_plain_layout_are_refused(tiny_folder: Path) -> None:
    with pytest.raises(UsageError, match="--layouts shared"):
        plan_series(Series(tiny_folder, kv_bits=8))


@pytest.mark.parametrize("peer", ["mlx-lm", "mlx-vlm"])
def test_a_peer_is_measured_with_the_same_weights_or_named_as_missing(tiny_folder: Path, peer: str) -> None:
    series = Series(tiny_folder, contexts=[512], layouts=[], peers=[peer], prefill_tokens=16, dtype="float32")
    if find_spec(peer.replace("-", "_")) is None:
        with pytest.raises(UsageError, match=f"pip install {peer}"):
            plan_series(series)
        return
    (point,) = plan_series(series)
    found = measure_point(point)
    assert "error" not in found
    assert found["peak_bytes"] > found["active_bytes"] > 0
    assert found["planned_bytes"] is None
