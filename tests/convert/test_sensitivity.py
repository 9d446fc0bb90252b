from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
import pytest

from convert.conversion import convert_source
from convert.layerwise import TABLE, LayerwiseModel, forward
from convert.measurement import CANDIDATES, measurement
from convert.recipes import Packing, Recipe
from convert.sensitivity import MEASURED, Sample, damages, divergence, error_ratios
from convert.source import read_source
from gemma_mlx.config import read_config
from gemma_mlx.errors import CheckpointError, UsageError
from gemma_mlx.inputs.image import ImagePatches
from gemma_mlx.inputs.prompt import MediaSpan, Prompt
from gemma_mlx.model.gemma4 import Gemma4
from gemma_mlx.soft_tokens import soft_tokens
from gemma_mlx.weights import load_model
from tests.convert.small_source import PATCH, write_source

ANSWER = (9, 30, 31, 32)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return write_source(tmp_path / "source")


def _sample(start: int = 5) -> Sample:
    """Text longer than the window of 8, with a picture of 4 patches inside."""
    patches = np.linspace(0, 1, 4 * PATCH, dtype=np.float32).reshape(4, PATCH)
    positions = np.array([[0, 0], [1, 0], [0, 1], [1, 1]])
    span = MediaSpan("image", 3, 4, ImagePatches(patches, positions, 8, 8, 8, 8), "a picture")
    return Sample(Prompt((2, start, 7, 250, 250, 250, 250, 8, 11, 12, 13, 14), (span,)), ANSWER)


def _logits(model: Gemma4, sample: Sample) -> mx.array:
    media = [(item.start, item.rows(0, item.stop - item.start)) for item in soft_tokens(model, sample.prompt.spans)]
    embeddings = model.embed([*sample.prompt.ids, *sample.answer_ids], media)
    return model.logits(model(embeddings, model.make_caches(), sample.images))[0]


def _logprobs(logits: mx.array) -> mx.array:
    return logits - mx.logsumexp(logits, axis=-1, keepdims=True)


def test_layer_by_layer_gives_the_models_own_logits(source: Path) -> None:
    config, sample = read_config(source), _sample()
    layerwise = LayerwiseModel(source, config)
    states = layerwise.embeddings(sample.prompt, sample.answer_ids)
    for layer in layerwise.layers():
        states = forward(layer.decoder(), states, sample.images)
    expected = _logits(load_model(source, config, mx.float32), sample)
    assert mx.abs(layerwise.logits(states)[0] - expected).max().item() < 1e-5


def test_rows_of_a_batch_do_not_see_each_other(source: Path) -> None:
    layerwise = LayerwiseModel(source, read_config(source))
    first, second = (layerwise.embeddings(sample.prompt, ANSWER) for sample in (_sample(5), _sample(6)))
    for layer in layerwise.layers():
        both = forward(layer.decoder(), mx.concatenate([first, second]), _sample().images)
        alone = forward(layer.decoder(), second, _sample().images)
        assert mx.abs(both[1] - alone[0]).max().item() < 1e-5


@pytest.mark.parametrize(
    "module",
    [
        TABLE,
        "language_model.layers.0.self_attn.v_proj",
        "language_model.layers.0.mlp.down_proj",
        "language_model.layers.1.self_attn.q_proj",
        "language_model.layers.1.self_attn.o_proj",
    ],
)
def test_damage_is_that_of_a_whole_model_with_this_module_packed(source: Path, tmp_path: Path, module: str) -> None:
    config, sample = read_config(source), _sample()
    found = damages(LayerwiseModel(source, config), sample)
    assert len(found) == 1 + 7 + 6
    alone = _only(module)
    convert_source(read_source(source), tmp_path / "packed", alone)
    packed = load_model(tmp_path / "packed", read_config(tmp_path / "packed"), mx.float32)
    assert sum(hasattr(part, "scales") for part in packed.modules()) == 1
    clean = load_model(source, config, mx.float32)
    judged = slice(len(sample.prompt) - 1, len(sample.prompt) + len(ANSWER) - 1)
    expected = divergence(*(_logprobs(_logits(model, sample)[judged]) for model in (clean, packed)))
    assert expected > 1e-4
    assert found[module] == pytest.approx(expected, rel=1e-4, abs=1e-5)


@dataclass(frozen=True)
class _Only(Recipe):
    module: str = ""

    def packing_of(self, name: str) -> Packing | None:
        return MEASURED if name == f"{self.module}.weight" else None


def _only(module: str) -> Recipe:
    return _Only("only", MEASURED, module=module)


def test_divergence_is_kl_also_where_little_differs() -> None:
    rng = np.random.default_rng(0)
    clean = rng.normal(size=(3, 64))
    for change in (1.0, 1e-3):
        other = clean + change * rng.normal(size=clean.shape)
        p, q = (x - np.log(np.exp(x).sum(-1, keepdims=True)) for x in (clean, other))
        expected = float((np.exp(p) * (p - q)).sum())
        found = divergence(mx.array(p.astype(np.float32)), mx.array(q.astype(np.float32)))
        assert found == pytest.approx(expected, rel=2e-3)
    assert divergence(mx.array(p.astype(np.float32)), mx.array(p.astype(np.float32))) == 0


def test_error_ratios_are_one_where_measured_and_fall_with_bits(source: Path) -> None:
    found = error_ratios(LayerwiseModel(source, read_config(source)), CANDIDATES)
    assert len(found) == 14
    for ratios in found.values():
        assert ratios[MEASURED] == 1
        assert ratios[Packing(3, 64)] > 3 > ratios[Packing(4, 32)] > ratios[Packing(6, 64)] > ratios[Packing(8, 64)] > 0


def test_a_killed_measurement_goes_on_and_gives_the_same(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config, samples, identity = read_config(source), [_sample(5), _sample(6), _sample(7)], {"source": "small"}
    whole = measurement(source, config, identity, samples, tmp_path / "whole.json")
    steps: list[int] = []

    def killed(done: int, layers: int) -> None:
        assert layers == 6
        steps.append(done)
        if done == 4:  # both layers of two samples; the second is not kept yet
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        measurement(source, config, identity, samples, tmp_path / "cut.json", killed)
    assert measurement(source, config, identity, samples, tmp_path / "cut.json", lambda n, _: steps.append(n)) == whole
    assert steps == [1, 2, 3, 4, 3, 4, 5, 6]
    assert (tmp_path / "cut.json").read_bytes() == (tmp_path / "whole.json").read_bytes()
    monkeypatch.setattr("convert.measurement.LayerwiseModel", None)  # nothing is read any more
    assert measurement(source, config, identity, samples, tmp_path / "cut.json") == whole


def test_a_measurement_of_something_else_is_refused_and_kept(source: Path, tmp_path: Path) -> None:
    file = tmp_path / "found.json"
    for content in ("{}", '{"source": {"source": "other"}, "error_ratios": {}, "samples": {}}'):
        file.write_text(content, encoding="utf-8")
        with pytest.raises(UsageError, match="is no measurement of this source"):
            measurement(source, read_config(source), {"source": "small"}, [_sample()], file)
        assert file.read_text(encoding="utf-8") == content


@pytest.mark.parametrize(
    "damage",
    [
        lambda kept: kept["error_ratios"].pop(TABLE),
        lambda kept: kept["error_ratios"][TABLE].pop("3-64"),
        lambda kept: kept.update(samples=[]),
        lambda kept: next(iter(kept["samples"].values()))["damages"].pop(TABLE),
        lambda kept: next(iter(kept["samples"].values()))["damages"].update({TABLE: "0.1"}),
        lambda kept: next(iter(kept["samples"].values()))["damages"].update({TABLE: float("nan")}),
        lambda kept: next(iter(kept["samples"].values())).update(positions=0),
    ],
)
def test_a_damaged_measurement_is_refused_in_one_line(
    source: Path, tmp_path: Path, damage: Callable[[Any], object]
) -> None:
    file, config, identity = tmp_path / "found.json", read_config(source), {"source": "small"}
    measurement(source, config, identity, [_sample()], file)
    kept = json.loads(file.read_text(encoding="utf-8"))
    damage(kept)
    file.write_text(json.dumps(kept), encoding="utf-8")
    with pytest.raises(CheckpointError, match=r"found\.json is damaged; remove it to measure again"):
        measurement(source, config, identity, [_sample()], file)


def test_a_measurement_that_is_cut_off_is_refused_in_one_line(source: Path, tmp_path: Path) -> None:
    file = tmp_path / "found.json"
    file.write_text('{"source": {"source": "sm', encoding="utf-8")
    with pytest.raises(CheckpointError, match=r"found\.json is damaged; remove it to measure again"):
        measurement(source, read_config(source), {"source": "small"}, [_sample()], file)
