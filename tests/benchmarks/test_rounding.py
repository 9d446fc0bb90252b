from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import cast

import mlx.core as mx
import numpy as np
import pytest

from benchmarks import rounding
from benchmarks.rounding import in_order, scaled_layer
from benchmarks.rounding_model import RoundingModel
from benchmarks.rounding_rules import MATRIX_RULES, channel_scales, output_error, plain
from convert.calibration import default_exchanges, samples_of
from convert.recipes import Packing
from gemma_mlx.home import miniature_folder

PACKING = Packing(4, 32)
COLUMNS = 128


@pytest.fixture(scope="module")
def weight() -> mx.array:
    return mx.random.normal((64, COLUMNS), key=mx.random.key(1))


@pytest.fixture(scope="module")
def moments() -> mx.array:
    """Of inputs whose columns are unequal and go together."""
    mixed = mx.random.normal((COLUMNS, COLUMNS), key=mx.random.key(2))
    inputs = mx.random.normal((1000, 24), key=mx.random.key(3)) @ mixed[:24] * mx.exp(mixed[0])
    return inputs.T @ inputs / 1000


@pytest.fixture(scope="module")
def model() -> RoundingModel:
    return RoundingModel(miniature_folder())


@pytest.mark.parametrize("rule", MATRIX_RULES)
def test_no_rule_takes_more_than_16_levels_of_a_group(rule: str, weight: mx.array, moments: mx.array) -> None:
    stored = np.array(MATRIX_RULES[rule](weight, moments, PACKING)).reshape(-1, PACKING.group_size)
    assert max(len(np.unique(group)) for group in stored) <= 16


def test_each_rule_lowers_what_it_is_for(weight: mx.array, moments: mx.array) -> None:
    stored = {name: rule(weight, moments, PACKING) for name, rule in MATRIX_RULES.items()}
    squared = {name: cast("float", mx.square(found - weight).sum().item()) for name, found in stored.items()}
    assert squared["search"] < squared["refit"] < 0.9 * squared["plain"]
    diagonal = mx.diag(mx.diag(moments))
    weighted = {name: output_error(weight, found, diagonal) for name, found in stored.items()}
    assert weighted["weighted search"] < 0.9 * weighted["search"]
    outputs = {name: output_error(weight, found, moments) for name, found in stored.items()}
    assert outputs["feedback, weighted search"] < outputs["feedback"] < 0.5 * outputs["plain"]
    assert outputs["feedback"] < outputs["feedback in groups"] < 0.95 * outputs["plain"]


def test_numbers_of_one_value_are_kept_by_every_rule(moments: mx.array) -> None:
    same = mx.full((4, COLUMNS), 0.3125)
    for rule in MATRIX_RULES.values():
        assert mx.array_equal(rule(same, moments, PACKING), same)


def test_columns_are_dealt_to_groups_and_back(weight: mx.array, moments: mx.array) -> None:
    assert mx.array_equal(in_order(plain, PACKING, None)(weight, moments), plain(weight, moments, PACKING))
    shuffled = in_order(plain, PACKING, 5)(weight, moments)
    assert mx.abs(shuffled - weight).max().item() < 0.3
    assert not mx.array_equal(shuffled, plain(weight, moments, PACKING))
    assert not mx.array_equal(shuffled, in_order(plain, PACKING, 6)(weight, moments))


def test_channel_scales_fold_into_a_norm_of_bfloat16(weight: mx.array, moments: mx.array) -> None:
    norm = mx.random.normal((COLUMNS,), key=mx.random.key(4)).astype(mx.bfloat16).astype(mx.float32)
    norm[3] = 0
    scales = channel_scales([weight], moments, norm, lambda part: plain(part, moments, PACKING))
    folded = norm / scales
    assert mx.allclose(folded, folded.astype(mx.bfloat16).astype(mx.float32), rtol=1e-6)
    assert mx.abs(scales - 1).max().item() > 0.1
    scaled = plain(weight * scales, moments, PACKING) / scales
    assert output_error(weight, scaled, moments) < output_error(weight, plain(weight, moments, PACKING), moments)


def test_scales_of_a_layer_cancel(model: RoundingModel) -> None:
    moments = {name: mx.diag(mx.arange(1.0, model.weights[name].shape[1] + 1)) for name in model.matrices}
    found = scaled_layer(
        model.weights, moments, "language_model.layers.5.", lambda weight, _: weight + 1e-9 * mx.abs(weight)
    )
    kinds = sorted(name.split(".")[-2] for name in found)
    assert kinds == ["down_proj", "gate_proj", "k_proj", "q_proj", "up_proj"]
    assert all(mx.allclose(part, model.weights[name], rtol=1e-5) for name, part in found.items())


def test_moments_are_those_of_the_checkpoints_columns(model: RoundingModel) -> None:
    """trace(W M W^T) is the mean squared output, also where loading moved the columns: of o_proj in the full layer."""
    samples = samples_of(miniature_folder(), default_exchanges(miniature=True)[:1])
    name = "language_model.layers.5.self_attn.o_proj.weight"
    attention = model._model.language_model.layers[5].self_attn
    outputs: list[mx.array] = []
    linear = attention.o_proj

    def recorded(x: mx.array) -> mx.array:
        outputs.append(linear(x))
        return outputs[-1]

    attention.o_proj = recorded  # type: ignore[assignment]
    model.answer_logprobs(samples)
    attention.o_proj = linear
    weight = model.weights[name]
    found = output_error(weight, mx.zeros_like(weight), model.moments(samples)[name])
    assert found == pytest.approx(mx.square(outputs[0]).sum(axis=-1).mean().item(), rel=1e-4)


def test_answers_are_those_of_the_matrices_given(model: RoundingModel) -> None:
    exchanges = default_exchanges(miniature=True)
    samples = samples_of(miniature_folder(), [exchanges[0], exchanges[2], exchanges[6], exchanges[3]])
    clean = model.answer_logprobs(samples)
    for sample, found in zip(samples, clean, strict=True):  # a batch is as one by one
        assert mx.allclose(model.answer_logprobs([sample])[0], found, atol=1e-3)
    name = "language_model.layers.5.self_attn.k_proj.weight"
    model.exchange({name: -model.weights[name]})
    assert not mx.allclose(model.answer_logprobs(samples[:1])[0], clean[0], atol=0.1)
    model.exchange({})
    assert mx.allclose(model.answer_logprobs(samples[:1])[0], clean[0], atol=1e-3)


def test_a_stopped_run_goes_on_and_the_table_compares(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    exchanges = default_exchanges(miniature=True)[:3]
    lines = [{"messages": list(one.messages), "answer": one.answer} for one in exchanges]
    prompts, result = tmp_path / "prompts.jsonl", tmp_path / "result.json"
    prompts.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    monkeypatch.setattr(rounding, "SETS", 2)
    monkeypatch.setattr(rounding, "PACKINGS", (PACKING,))
    monkeypatch.setattr(rounding, "held_out", list)
    monkeypatch.setattr(rounding, "default_exchanges", lambda *, miniature: exchanges)
    monkeypatch.setattr(rounding, "RULES", ("plain", "refit"))
    monkeypatch.setattr(sys, "argv", ["rounding", str(prompts), str(result)])
    rounding.main()
    assert capsys.readouterr().err.count("set 2 of 2") == 4
    report = json.loads(result.read_text(encoding="utf-8"))
    report["points"] = report["points"][:-1]
    result.write_text(json.dumps(report), encoding="utf-8")
    rounding.main()
    printed = capsys.readouterr()
    assert printed.err.splitlines() == ["4 bits, groups of 32, columns as trained, set 2 of 2: refit"]
    rows = [line for line in printed.out.splitlines() if "| refit |" in line]
    assert len(rows) == 2
    sets = [
        point["kl_mean"] for point in report["points"] if (point["columns"], point["rule"]) == ("shuffled", "plain")
    ]
    [plain_row] = [line for line in printed.out.splitlines() if "| shuffled | plain |" in line]
    assert f"| {1000 * (sets[0] + sets[1]) / 2:.2f} |" in plain_row
    assert sets[0] > 0 < sets[1] != sets[0]
    assert rows[0].count("+-") == 3


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("What is 2 + 3?", r"line 1 .* has no answer"),
        ('{"text": "What is 2 + 3?", "answer": "5"}', r"has 1 prompts for 8 sets"),
    ],
)
def test_prompts_that_cannot_be_used_are_named(
    text: str, told: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prompts = tmp_path / "prompts.txt"
    prompts.write_text(text + "\n", encoding="utf-8")
    monkeypatch.setattr(sys, "argv", ["rounding", str(prompts), str(tmp_path / "result.json")])
    with pytest.raises(SystemExit, match=told):
        rounding.main()
    assert not (tmp_path / "result.json").exists()
