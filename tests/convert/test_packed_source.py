"""A packed folder as the source: copied where it is as wanted, unpacked and packed again elsewhere."""

from __future__ import annotations

import json
from pathlib import Path

import mlx.core as mx
import pytest

from convert.conversion import convert_checkpoint
from convert.packed_source import Repacking
from gemma_mlx.config import read_config
from gemma_mlx.errors import CheckpointError
from gemma_mlx.names import canonical_name, mlx_name
from gemma_mlx.weights import load_model
from tests.convert.small_source import CONFIG, source_tensors, write_source

PACKED = 1 + 7 + 6
"""The token table, and the matrices of a sliding and a full layer."""
EMBEDDING = "language_model.model.embed_tokens"
Tensors = dict[str, mx.array]


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return write_source(tmp_path / "source")


def loaded(folder: Path) -> Tensors:
    tensors: Tensors = {}
    for file in folder.glob("*.safetensors"):
        found = mx.load(str(file))
        assert isinstance(found, dict)
        tensors |= found
    return tensors


def same(a: Tensors, b: Tensors) -> bool:
    return a.keys() == b.keys() and all(
        a[name].dtype == b[name].dtype and mx.array_equal(a[name], b[name]).item() for name in a
    )


def written_by_others(folder: Path, packing: dict[str, dict[str, object]], default: dict[str, object]) -> Path:
    """The small source as an MLX program packs it: modules in `packing` in their own way, other matrices by default."""
    tensors: Tensors = {}
    for name, array in source_tensors().items():
        mlx = mlx_name(canonical_name(name))
        module, _, part = mlx.rpartition(".")
        if part == "weight" and array.ndim == 2 and array.shape[1] % 64 == 0:
            form = packing.get(module, default)
            weight, scales, *biases = mx.quantize(array, **form)  # type: ignore[arg-type]
            tensors |= {mlx: weight, f"{module}.scales": scales}
            if biases:
                tensors[f"{module}.biases"] = biases[0]
        else:
            tensors[mlx] = array
    write_source(folder, tensors)
    (folder / "config.json").write_text(json.dumps(CONFIG | {"quantization": default | packing}))
    return folder


def unpacked(folder: Path) -> Tensors:
    """Every tensor of a packed folder, whole, in float32."""
    tensors = loaded(folder)
    quantization = read_config(folder).quantization
    assert quantization is not None
    for name in [name for name in tensors if name.endswith(".scales")]:
        module = name.removesuffix(".scales")
        packing = quantization.of(canonical_name(module))
        assert packing is not None
        scales, biases = tensors.pop(name), tensors.pop(f"{module}.biases", None)
        if biases is not None:
            scales, biases = scales.astype(mx.float32), biases.astype(mx.float32)
        tensors[f"{module}.weight"] = mx.dequantize(
            tensors[f"{module}.weight"], scales, biases, dtype=mx.float32, **vars(packing)
        )
    return tensors


@pytest.mark.parametrize("recipe", ["4bit", "8bit"])
def test_what_is_packed_as_wanted_is_copied_bit_for_bit(source: Path, tmp_path: Path, recipe: str) -> None:
    convert_checkpoint(source, tmp_path / "once", recipe)
    report = convert_checkpoint(tmp_path / "once", tmp_path / "twice", recipe)
    assert report.repacking == Repacking(copied=PACKED)
    for file in (tmp_path / "once").glob("*.json"):
        assert (tmp_path / "twice" / file.name).read_bytes() == file.read_bytes(), file.name
    assert same(loaded(tmp_path / "once"), loaded(tmp_path / "twice"))


@pytest.mark.parametrize(
    "default",
    [
        {"bits": 8, "group_size": 64, "mode": "affine"},
        {"bits": 3, "group_size": 32, "mode": "affine"},
        {"bits": 6, "group_size": 64, "mode": "affine"},
        {"bits": 4, "group_size": 32, "mode": "mxfp4"},
        {"bits": 4, "group_size": 16, "mode": "nvfp4"},
        {"bits": 8, "group_size": 32, "mode": "mxfp8"},
    ],
)
def test_another_packing_is_packed_again_as_its_unpacked_numbers_are(
    tmp_path: Path, default: dict[str, object], monkeypatch: pytest.MonkeyPatch
) -> None:
    packed = written_by_others(tmp_path / "packed", {}, default)
    whole = write_source(tmp_path / "whole", unpacked(packed))
    convert_checkpoint(whole, tmp_path / "a", "4bit")
    report = convert_checkpoint(packed, tmp_path / "b", "4bit")
    assert same(loaded(tmp_path / "a"), loaded(tmp_path / "b"))
    more = 1 + (PACKED if default["bits"] == 3 else 0)
    assert report.repacking == Repacking(repacked=PACKED, unpacked=1, with_more_bits=more)
    assert all(tally.relative_error > 0 for tally in report.changes.values())
    monkeypatch.setattr("convert.packed_source.SLICE_NUMBERS", 3 * 64)
    convert_checkpoint(packed, tmp_path / "sliced", "4bit")
    assert same(loaded(tmp_path / "b"), loaded(tmp_path / "sliced"))


def test_only_what_differs_is_packed_again(tmp_path: Path) -> None:
    packed = written_by_others(
        tmp_path / "packed", {EMBEDDING: {"bits": 6, "group_size": 64}}, {"bits": 4, "group_size": 64, "mode": "affine"}
    )
    report = convert_checkpoint(packed, tmp_path / "out", "4bit")
    assert report.repacking == Repacking(copied=PACKED - 1, repacked=1, unpacked=1, with_more_bits=1)
    assert report.changes["embed_tokens"].relative_error > 0.05
    assert all(tally.relative_error == 0 for kind, tally in report.changes.items() if kind != "embed_tokens")
    before, after = loaded(packed), loaded(tmp_path / "out")
    alike = [name for name in after if name in before and mx.array_equal(before[name], after[name]).item()]
    assert set(after) - set(alike) == {
        f"{EMBEDDING}.weight",
        f"{EMBEDDING}.scales",
        f"{EMBEDDING}.biases",
        "embed_vision.embedding_projection.weight",
    }
    load_model(tmp_path / "out", read_config(tmp_path / "out"))


def test_scales_of_another_type_are_copied_too(source: Path, tmp_path: Path) -> None:
    convert_checkpoint(source, tmp_path / "once", "4bit")
    tensors = loaded(tmp_path / "once")
    for name in tensors:
        if name.endswith((".scales", ".biases")):
            tensors[name] = tensors[name].astype(mx.float32) * 1.001
    mx.save_safetensors(str(tmp_path / "once/model-00001-of-00001.safetensors"), tensors)
    convert_checkpoint(tmp_path / "once", tmp_path / "twice", "4bit")
    assert same(tensors, loaded(tmp_path / "twice"))


def test_bf16_holds_the_unpacked_numbers_and_the_report_says_what_that_cannot_do(source: Path, tmp_path: Path) -> None:
    convert_checkpoint(source, tmp_path / "four", "4bit")
    report = convert_checkpoint(tmp_path / "four", tmp_path / "whole", "bf16")
    assert same(loaded(tmp_path / "whole"), {n: a.astype(mx.bfloat16) for n, a in unpacked(tmp_path / "four").items()})
    assert "quantization" not in json.loads((tmp_path / "whole/config.json").read_text())
    assert str(report.repacking) == (
        f"packed modules of the source: {PACKED} unpacked; more bits do not bring back what the source had lost"
    )


@pytest.mark.parametrize("recipe", ["4bit", "8bit"])
def test_progress_counts_the_bytes_of_the_packed_source(source: Path, tmp_path: Path, recipe: str) -> None:
    calls: list[tuple[int, int]] = []
    convert_checkpoint(source, tmp_path / "eight", "8bit")
    total = sum(array.nbytes for array in loaded(tmp_path / "eight").values())
    convert_checkpoint(
        tmp_path / "eight", tmp_path / "out", recipe, progress=lambda done, total: calls.append((done, total))
    )
    assert calls[-1] == (total, total)
    assert calls == sorted(calls)


def test_a_copy_that_was_stopped_goes_on(source: Path, tmp_path: Path) -> None:
    def interrupt(done: int, total: int) -> None:
        if done > total // 2:
            raise KeyboardInterrupt

    convert_checkpoint(source, tmp_path / "once", "4bit")
    with pytest.raises(KeyboardInterrupt):
        convert_checkpoint(tmp_path / "once", tmp_path / "twice", "4bit", progress=interrupt)
    calls: list[int] = []
    convert_checkpoint(tmp_path / "once", tmp_path / "twice", "4bit", progress=lambda done, total: calls.append(done))
    assert same(loaded(tmp_path / "once"), loaded(tmp_path / "twice"))
    assert min(calls) > sum(array.nbytes for array in loaded(tmp_path / "once").values()) // 3


def test_packed_numbers_that_are_none_are_refused(source: Path, tmp_path: Path) -> None:
    convert_checkpoint(source, tmp_path / "once", "4bit")
    tensors = loaded(tmp_path / "once")
    tensors[f"{EMBEDDING}.scales"][3, 0] = float("nan")
    mx.save_safetensors(str(tmp_path / "once/model-00001-of-00001.safetensors"), tensors)
    for recipe in ("4bit", "8bit"):
        with pytest.raises(CheckpointError, match=r"embed_tokens\.scales .* holds NaN or infinity"):
            convert_checkpoint(tmp_path / "once", tmp_path / "twice", recipe)
        assert not (tmp_path / "twice").exists()


@pytest.mark.parametrize("recipe", ["4bit", "bf16"])
def test_scales_that_come_to_infinity_are_refused(source: Path, tmp_path: Path, recipe: str) -> None:
    """The largest bfloat16 in each, so that codes times scale are beyond it."""
    convert_checkpoint(source, tmp_path / "once", "8bit")
    tensors = loaded(tmp_path / "once")
    tensors[f"{EMBEDDING}.scales"][3, 0] = 3e38
    mx.save_safetensors(str(tmp_path / "once/model-00001-of-00001.safetensors"), tensors)
    with pytest.raises(CheckpointError, match=r"embed_tokens\.weight comes to NaN or infinity"):
        convert_checkpoint(tmp_path / "once", tmp_path / "twice", recipe)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["once", "source"]
