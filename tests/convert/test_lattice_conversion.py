"""A QAT release through the converter: what is kept, what is refused, and that the model computes with it."""

from __future__ import annotations

import json
import warnings
from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest
from mlx.utils import tree_flatten

from convert.conversion import convert_checkpoint
from gemma_mlx.checkpoint import read_headers
from gemma_mlx.config import read_config
from gemma_mlx.errors import CheckpointError, GemmaWarning, UsageError
from gemma_mlx.model.gemma4 import Gemma4
from gemma_mlx.names import canonical_name
from gemma_mlx.weights import load_model
from tests.convert.lattice_source import is_packed, trained_tensors
from tests.convert.small_source import CONFIG, source_tensors, write_source

LAST = "model.language_model.layers.1.self_attn.q_proj.weight"


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return write_source(tmp_path / "source", trained_tensors())


def unpacked(model: Gemma4) -> dict[str, mx.array]:
    """The matrices of the packed layers, rounded to bfloat16."""
    whole = {}
    for path, module in model.named_modules():
        if "scales" in module:
            parts = [module[name].astype(mx.float32) for name in ("scales", "biases")]
            matrix = mx.dequantize(module["weight"], *parts, group_size=module.group_size, bits=module.bits)
            whole[f"{path}.weight"] = matrix.astype(mx.bfloat16)
    return whole


def released(source: Path) -> dict[str, mx.array]:
    """The weights of the model in `source`, as a packed model holds them.

    In so small a model, columns of o_proj that are packed stay in their order (`shared_rows.py`).
    """
    last = "layers.1.self_attn.o_proj.weight"
    weights = dict(tree_flatten(loaded(source).parameters()))
    tensors = mx.load(str(source / "model.safetensors"))
    assert isinstance(tensors, dict)
    return weights | {f"language_model.{last}": tensors[f"model.language_model.{last}"].astype(mx.float32)}


def loaded(folder: Path, dtype: mx.Dtype | None = None) -> Gemma4:
    return load_model(folder, read_config(folder), dtype)


def logits(model: Gemma4) -> mx.array:
    ids = mx.array([[2, 7, 9, 30]])
    return model.logits(model(model.embed_tokens(ids), model.make_caches()))


def test_model_with_float32_scales_is_the_release(source: Path, tmp_path: Path) -> None:
    report = convert_checkpoint(source, tmp_path / "out", "qat-f32")
    packed, release = loaded(tmp_path / "out"), released(source)
    whole = unpacked(packed)
    assert len(whole) == sum(map(is_packed, trained_tensors()))
    for name, matrix in whole.items():
        assert mx.array_equal(matrix.astype(mx.float32), release[name]), name
    assert all(tally.same_numbers == tally.numbers for tally in report.changes.values())
    with pytest.warns(GemmaWarning, match="trained for 4 bits"):
        convert_checkpoint(source, tmp_path / "rounded", "4bit-g32")
    wanted = logits(loaded(source))
    error, error_of_rounded = (mx.abs(logits(model) - wanted).max() for model in (packed, loaded(tmp_path / "rounded")))
    assert error < 0.1 * error_of_rounded  # only what the release lost when it was rounded to bfloat16


def test_model_with_bfloat16_scales_has_the_same_codes(source: Path, tmp_path: Path) -> None:
    report = convert_checkpoint(source, tmp_path / "out", "qat")
    convert_checkpoint(source, tmp_path / "exact", "qat-f32")
    short, exact = loaded(tmp_path / "out"), loaded(tmp_path / "exact")
    for path, module in short.named_modules():
        if "scales" in module:
            other = dict(exact.named_modules())[path]
            assert mx.array_equal(module["weight"], other["weight"])
    tally = sum(list(report.changes.values())[1:], start=next(iter(report.changes.values())))
    assert tally.blocks_off_lattice == 0
    assert 0.89 < tally.same_numbers / tally.numbers < 1
    assert report.off_lattice == ""
    release = released(source)
    same = sum(int((matrix.astype(mx.float32) == release[name]).sum()) for name, matrix in unpacked(short).items())
    assert same == tally.same_numbers


@pytest.mark.parametrize("recipe", ["qat", "qat-f32"])
def test_scales_are_loaded_as_they_are_stored_and_layers_answer_in_bfloat16(
    source: Path, tmp_path: Path, recipe: str
) -> None:
    convert_checkpoint(source, tmp_path / "out", recipe)
    model = loaded(tmp_path / "out", mx.bfloat16)
    stored = {"qat": mx.bfloat16, "qat-f32": mx.float32}[recipe]
    x = mx.ones((1, 3, 64), dtype=mx.bfloat16)
    for layer in model.language_model.layers:
        assert layer.mlp.gate_proj.scales.dtype == layer.self_attn.o_proj.biases.dtype == stored
        assert layer.mlp(x).dtype == layer.self_attn.q_proj(x).dtype == mx.bfloat16
    assert model.language_model.embed_tokens.scales.dtype == stored
    assert model.token_rows(mx.array([[1]])).dtype == mx.bfloat16
    assert logits(model).dtype == mx.bfloat16
    in_float32 = logits(loaded(tmp_path / "out", mx.float32))
    assert mx.abs(logits(model).astype(mx.float32) - in_float32).max() < 0.1 * mx.abs(in_float32).max()


def test_folder_says_what_it_is(source: Path, tmp_path: Path) -> None:
    convert_checkpoint(source, tmp_path / "out", "qat-f32")
    packing = {"group_size": 32, "bits": 4, "mode": "affine"}
    config = json.loads((tmp_path / "out/config.json").read_text())
    assert config == CONFIG | {"quantization": packing, "quantization_config": packing}
    dtypes = {
        info.dtype for name, info in read_headers(tmp_path / "out").items() if name.endswith((".scales", ".biases"))
    }
    assert dtypes == {"F32"}


@pytest.mark.parametrize("said", [{"quant_method": "gemma", "kind": "q4_0"}, {"kind": "q4_0"}])
def test_what_the_release_says_of_its_training_is_no_hindrance(
    source: Path, tmp_path: Path, said: dict[str, str]
) -> None:
    (source / "config.json").write_text(json.dumps(CONFIG | {"quantization_config": said}))
    convert_checkpoint(source, tmp_path / "out", "qat")
    assert json.loads((tmp_path / "out/config.json").read_text())["quantization_config"]["bits"] == 4
    loaded(tmp_path / "out")


def test_source_that_was_not_trained_for_it_is_refused_before_any_work(tmp_path: Path) -> None:
    source = write_source(tmp_path / "source")
    progress: list[int] = []
    with pytest.raises(
        CheckpointError, match=r"not on a 4-bit lattice: \S+ \(.* of .* blocks\), .* more tensors; .*--round"
    ):
        convert_checkpoint(source, tmp_path / "out", "qat", progress=lambda done, total: progress.append(done))
    assert progress == []
    assert [path.name for path in tmp_path.iterdir()] == ["source"]


def _with_one_block_off() -> dict[str, mx.array]:
    tensors = trained_tensors()
    tensors[LAST][-1, 40] = 1.37 * mx.abs(tensors[LAST][-1]).max()
    return tensors


def test_one_block_off_the_lattice_in_the_last_row_is_found(tmp_path: Path) -> None:
    source = write_source(tmp_path / "source", _with_one_block_off())
    with pytest.raises(CheckpointError, match=rf"not on a 4-bit lattice: {LAST} \(1 of 512 blocks\); "):
        convert_checkpoint(source, tmp_path / "out", "qat")
    assert [path.name for path in tmp_path.iterdir()] == ["source"]


def test_it_is_rounded_on_request_and_only_it(tmp_path: Path) -> None:
    tensors = _with_one_block_off()
    source = write_source(tmp_path / "source", tensors)
    report = convert_checkpoint(source, tmp_path / "out", "qat-f32", round_off_lattice=True)
    assert report.off_lattice == f"{LAST} (1 of 512 blocks)"
    assert report.changes["q_proj"].blocks_off_lattice == 1
    release = released(source)
    changed = {name: matrix != release[name] for name, matrix in unpacked(loaded(tmp_path / "out")).items()}
    assert [name for name, where in changed.items() if where.any()] == [canonical_name(LAST)]
    assert 0 < int(changed[canonical_name(LAST)].sum()) <= 32


def test_rounding_most_of_a_source_is_refused_with_what_rounds_as_well(tmp_path: Path) -> None:
    source = write_source(tmp_path / "source", source_tensors())
    with pytest.raises(CheckpointError, match=r"most of the source is not on a 4-bit lattice.*use --recipe 4bit-g32"):
        convert_checkpoint(source, tmp_path / "out", "qat", round_off_lattice=True)
    assert [path.name for path in tmp_path.iterdir()] == ["source"]


def test_rounding_without_a_lattice_is_wrong_usage(source: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="--round rounds what is off the lattice of --recipe qat; leave it out"):
        convert_checkpoint(source, tmp_path / "out", "4bit", round_off_lattice=True)


def test_other_recipes_say_that_they_leave_the_lattice(source: Path, tmp_path: Path) -> None:
    with pytest.warns(GemmaWarning, match="--recipe qat keeps its numbers, --recipe 4bit rounds them again"):
        convert_checkpoint(source, tmp_path / "out", "4bit")
    write_source(tmp_path / "other", source_tensors())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        convert_checkpoint(tmp_path / "other", tmp_path / "plain", "4bit")
        convert_checkpoint(source, tmp_path / "whole", "bf16")


def test_float32_copy_of_a_release_gives_the_same_folder(source: Path, tmp_path: Path) -> None:
    write_source(tmp_path / "wide", {name: array.astype(mx.float32) for name, array in trained_tensors().items()})
    convert_checkpoint(source, tmp_path / "a", "qat")
    convert_checkpoint(tmp_path / "wide", tmp_path / "b", "qat")
    a, b = (unpacked(loaded(tmp_path / name)) for name in "ab")
    assert all(np.array_equal(np.array(a[name].view(mx.uint16)), np.array(b[name].view(mx.uint16))) for name in a)
