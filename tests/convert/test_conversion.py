from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import mlx.core as mx
import numpy as np
import pytest

from convert.conversion import convert_checkpoint, packing_threads
from convert.recipes import RECIPES, recipe_named
from gemma_mlx.checkpoint import read_headers
from gemma_mlx.config import read_config
from gemma_mlx.errors import CheckpointError, GemmaWarning, UsageError
from gemma_mlx.names import canonical_name
from gemma_mlx.weights import load_model
from tests.convert.lattice_source import trained_tensors
from tests.convert.small_source import CONFIG, HIDDEN, source_tensors, write_source

PACKED = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj", "embed_tokens"]


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return write_source(tmp_path / "source")


def _loaded(folder: Path) -> dict[str, mx.array]:
    tensors: dict[str, mx.array] = {}
    for file in sorted(folder.glob("*.safetensors")):
        found = mx.load(str(file))
        assert isinstance(found, dict)
        tensors |= found
    return tensors


def _same_bits(a: mx.array, b: mx.array) -> bool:
    return np.array_equal(np.array(a.view(mx.uint16)), np.array(b.view(mx.uint16)))


def _mlx(released: str) -> str:
    return released.removeprefix("model.").replace("language_model.", "language_model.model.")


def _is_packed(released: str) -> bool:
    return released.startswith("model.language_model.") and any(f".{kind}." in released for kind in PACKED)


@pytest.mark.parametrize("recipe", RECIPES)
def test_converted_folder_loads_as_a_model(tmp_path: Path, recipe: str) -> None:
    source = write_source(tmp_path / "source", trained_tensors() if recipe.startswith("qat") else None)
    convert_checkpoint(source, tmp_path / "out", recipe)
    config = read_config(tmp_path / "out")
    model = load_model(tmp_path / "out", config)
    ids = mx.array([[2, 7, 9]])
    packed = hasattr(model.language_model.layers[0].mlp.gate_proj, "scales")
    assert packed == (recipe != "bf16")
    assert model.language_model.embed_tokens(ids).shape == (1, 3, HIDDEN)


@pytest.mark.parametrize("bits", [4, 8])
def test_packed_weights_are_close_and_the_rest_is_untouched(source: Path, tmp_path: Path, bits: int) -> None:
    report = convert_checkpoint(source, tmp_path / "out", f"{bits}bit")
    written = _loaded(tmp_path / "out")
    names = set()
    for released, original in source_tensors().items():
        name = _mlx(released)
        names.add(name)
        if not _is_packed(released):
            assert _same_bits(written[name], original), name
            continue
        module = name.removesuffix(".weight")
        parts = [written[name], *(written[f"{module}.{part}"] for part in ("scales", "biases"))]
        names |= {f"{module}.scales", f"{module}.biases"}
        assert [part.dtype for part in parts] == [mx.uint32, mx.bfloat16, mx.bfloat16]
        whole = mx.dequantize(parts[0], *(part.astype(mx.float32) for part in parts[1:]), group_size=64, bits=bits)
        error = mx.sqrt(mx.square(whole - original).sum() / mx.square(original.astype(mx.float32)).sum()).item()
        assert error < {4: 0.095, 8: 0.006}[bits], name
    assert set(written) == names
    assert sorted(report.changes) == sorted(PACKED)
    assert all(0 < tally.relative_error < {4: 0.095, 8: 0.006}[bits] for tally in report.changes.values())


def test_slices_of_a_tensor_join_without_a_seam(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    convert_checkpoint(source, tmp_path / "whole", "4bit")
    monkeypatch.setattr("convert.source_tensor.SLICE_NUMBERS", 3 * HIDDEN)
    convert_checkpoint(source, tmp_path / "sliced", "4bit")
    whole, sliced = _loaded(tmp_path / "whole"), _loaded(tmp_path / "sliced")
    assert all(mx.array_equal(whole[name], sliced[name]) for name in whole)


def test_bf16_is_the_source_bit_for_bit(source: Path, tmp_path: Path) -> None:
    report = convert_checkpoint(source, tmp_path / "out", "bf16")
    written, original = _loaded(tmp_path / "out"), source_tensors()
    assert set(written) == {_mlx(name) for name in original}
    assert all(_same_bits(written[_mlx(name)], array) for name, array in original.items())
    assert "quantization" not in json.loads((tmp_path / "out/config.json").read_text())
    assert (report.bits_per_weight, report.changes) == (16.0, {})


def test_config_says_how_it_is_packed_and_keeps_the_rest(source: Path, tmp_path: Path) -> None:
    convert_checkpoint(source, tmp_path / "out", "4bit")
    packing = {"group_size": 64, "bits": 4, "mode": "affine"}
    config = json.loads((tmp_path / "out/config.json").read_text())
    assert config == CONFIG | {"quantization": packing, "quantization_config": packing}


def test_text_side_is_copied_byte_for_byte(source: Path, tmp_path: Path) -> None:
    convert_checkpoint(source, tmp_path / "out", "4bit")
    copied = [path.name for path in source.iterdir() if path.name not in ("config.json", "model.safetensors")]
    assert len(copied) == 5
    assert all((tmp_path / "out" / name).read_bytes() == (source / name).read_bytes() for name in copied)


def test_small_shards_and_their_index_hold_the_same_tensors(source: Path, tmp_path: Path) -> None:
    convert_checkpoint(source, tmp_path / "one", "4bit")
    convert_checkpoint(source, tmp_path / "many", "4bit", shard_bytes=20_000)
    one, many = _loaded(tmp_path / "one"), _loaded(tmp_path / "many")
    assert all(mx.array_equal(one[name], many[name]) for name in one)
    index = json.loads((tmp_path / "many/model.safetensors.index.json").read_text())
    infos = read_headers(tmp_path / "many")
    files = sorted(path.name for path in (tmp_path / "many").glob("*.safetensors"))
    assert len(files) > 3
    assert files == [f"model-{i:05d}-of-{len(files):05d}.safetensors" for i in range(1, len(files) + 1)]
    assert index["weight_map"] == {info.name: info.file.name for info in infos.values()}
    assert index["metadata"]["total_size"] == sum(info.nbytes for info in infos.values())
    assert (tmp_path / "one/model.safetensors.index.json").is_file()


def test_report_gives_size_and_bits_on_disk(source: Path, tmp_path: Path) -> None:
    report = convert_checkpoint(source, tmp_path / "out", "4bit")
    numbers = sum(array.size for array in source_tensors().values())
    stored_bytes = sum(info.nbytes for info in read_headers(tmp_path / "out").values())
    assert report.bits_per_weight == pytest.approx(8 * stored_bytes / numbers)
    assert report.bytes_written == sum(file.stat().st_size for file in (tmp_path / "out").iterdir())
    assert report.tensors == len(source_tensors())


def test_progress_ends_at_the_total(source: Path, tmp_path: Path) -> None:
    calls: list[tuple[int, int]] = []
    convert_checkpoint(source, tmp_path / "out", "4bit", progress=lambda done, total: calls.append((done, total)))
    total = sum(array.nbytes for array in source_tensors().values())
    assert calls[-1] == (total, total)
    assert calls == sorted(calls)


def _module_names(tensors: dict[str, mx.array]) -> dict[str, mx.array]:
    vision = ("patch_ln1", "patch_dense", "patch_ln2", "pos_embedding", "pos_norm")
    renamed = {}
    for name, array in tensors.items():
        name = name.replace("model.embed_vision.", "model.embed_vision.multimodal_embedder.")
        if name.split(".")[2] in vision:
            name = name.replace("vision_embedder", "embed_vision")
        renamed[name] = array
    return renamed


def _as_float32(tensors: dict[str, mx.array]) -> dict[str, mx.array]:
    return {name: array.astype(mx.float32) for name, array in tensors.items()}


@pytest.mark.parametrize("spelling", [_module_names, _as_float32])
def test_other_spellings_of_a_source_give_the_same_folder(
    source: Path, tmp_path: Path, spelling: Callable[[dict[str, mx.array]], dict[str, mx.array]]
) -> None:
    write_source(tmp_path / "other", spelling(source_tensors()))
    convert_checkpoint(source, tmp_path / "a", "4bit")
    convert_checkpoint(tmp_path / "other", tmp_path / "b", "4bit")
    a, b = _loaded(tmp_path / "a"), _loaded(tmp_path / "b")
    assert a.keys() == b.keys()
    assert all(mx.array_equal(a[name], b[name]) for name in a)


def test_sharded_source_gives_the_same_folder(source: Path, tmp_path: Path) -> None:
    convert_checkpoint(source, tmp_path / "sharded", "bf16", shard_bytes=20_000)
    convert_checkpoint(tmp_path / "sharded", tmp_path / "b", "4bit")
    convert_checkpoint(source, tmp_path / "a", "4bit")
    a, b = _loaded(tmp_path / "a"), _loaded(tmp_path / "b")
    assert all(mx.array_equal(a[name], b[name]) for name in a)


def _refused(source: Path, destination: Path, message: str, recipe: str = "4bit") -> None:
    before = sorted(destination.parent.rglob("*"))
    with pytest.raises(CheckpointError, match=message) as caught:
        convert_checkpoint(source, destination, recipe)
    assert "\n" not in str(caught.value)
    assert sorted(destination.parent.rglob("*")) == before


@pytest.mark.parametrize(
    "name", ["model.language_model.layers.1.mlp.up_proj.weight", "model.language_model.norm.weight"]
)
@pytest.mark.parametrize("value", [float("nan"), float("-inf")])
def test_number_that_is_none_is_refused_and_nothing_is_left(tmp_path: Path, name: str, value: float) -> None:
    tensors = source_tensors()
    tensors[name][-1] = value
    _refused(write_source(tmp_path / "source", tensors), tmp_path / "out", f"{name} .* holds NaN or infinity")


@pytest.mark.parametrize(
    ("name", "dtype"), [("norm", mx.float32), ("embed_tokens", mx.float32), ("embed_tokens", mx.bfloat16)]
)
def test_a_number_that_bfloat16_or_a_scale_cannot_hold_is_refused(tmp_path: Path, name: str, dtype: mx.Dtype) -> None:
    """In float32 alone; or both ends of bfloat16 in one group, whose range is beyond it."""
    tensors = source_tensors()
    name = f"model.language_model.{name}.weight"
    numbers = tensors[name].astype(dtype)
    numbers.reshape(-1)[:2] = 0
    row = numbers[0] if numbers.ndim == 2 else numbers
    row[:2] = mx.array([3.4e38, -3.4e38]) if dtype == mx.float32 else mx.array([3.3e38, -3.3e38])
    tensors[name] = mx.concatenate([row[None], numbers[1:]]) if numbers.ndim == 2 else row
    _refused(write_source(tmp_path / "source", tensors), tmp_path / "out", f"{name} comes to NaN or infinity")


def test_full_disk_is_foreseen_with_both_numbers(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=10_000))
    _refused(source, tmp_path / "out", r"0\.\d+ GB are still to be written to .*/out, and 0\.00 GB are free there")


def test_existing_destination_is_kept(source: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out/mine.txt").write_text("mine")
    with pytest.raises(UsageError, match="exists and is not overwritten"):
        convert_checkpoint(source, tmp_path / "out", "4bit")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["mine.txt"]


def test_what_came_to_the_destination_meanwhile_is_kept_and_moved_away_it_goes_on(source: Path, tmp_path: Path) -> None:
    def appears(done: int, total: int) -> None:
        (tmp_path / "out").mkdir(exist_ok=True)

    with pytest.raises(
        CheckpointError, match=r"out has appeared meanwhile; move it away; out\.partial keeps what is done"
    ):
        convert_checkpoint(source, tmp_path / "out", "4bit", progress=appears)
    (tmp_path / "out").rmdir()
    convert_checkpoint(source, tmp_path / "out", "4bit")
    convert_checkpoint(source, tmp_path / "again", "4bit")
    out, again = ({path.name: path.read_bytes() for path in (tmp_path / name).iterdir()} for name in ("out", "again"))
    assert out == again


def test_nothing_is_converted_into_a_folder_that_is_not_finished(source: Path, tmp_path: Path) -> None:
    (tmp_path / "model.partial").mkdir()
    with pytest.raises(UsageError, match=r"model is not finished: .*model\.partial is still there"):
        convert_checkpoint(source, tmp_path / "model" / "drafter", "4bit")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model.partial", "source"]


def test_dangling_link_as_destination_is_refused_before_any_work(source: Path, tmp_path: Path) -> None:
    (tmp_path / "out").symlink_to(tmp_path / "nowhere")
    with pytest.raises(UsageError, match="exists and is not overwritten"):
        convert_checkpoint(source, tmp_path / "out", "4bit")


def test_parents_made_for_a_failed_conversion_are_removed(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=0))
    (tmp_path / "mine").mkdir()
    _refused(source, tmp_path / "mine/new/newer/out", "GB are free there")
    assert list((tmp_path / "mine").iterdir()) == []


def test_name_that_is_too_long_is_refused(source: Path, tmp_path: Path) -> None:
    _refused(source, tmp_path / ("x" * 300), "cannot write .*File name too long")


def test_destination_inside_a_file_is_refused(source: Path) -> None:
    _refused(source, source / "config.json" / "out", "cannot write .*; name another folder")


def test_incomplete_source_is_refused_before_any_work(tmp_path: Path) -> None:
    tensors = source_tensors()
    del tensors["model.language_model.layers.1.mlp.up_proj.weight"]
    source = write_source(tmp_path / "source", tensors)
    _refused(source, tmp_path / "out", r"lacks 1 tensors, first .*layers\.1\.mlp\.up_proj\.weight")


@pytest.mark.parametrize("name", ["tokenizer.json", "chat_template.jinja"])
def test_source_without_its_text_side_is_refused(source: Path, tmp_path: Path, name: str) -> None:
    (source / name).unlink()
    _refused(source, tmp_path / "out", name)


def test_unknown_key_of_the_config_is_warned_about(source: Path, tmp_path: Path) -> None:
    (source / "config.json").write_text(json.dumps(CONFIG | {"new_key": 1}))
    with pytest.warns(GemmaWarning, match="new_key"):
        convert_checkpoint(source, tmp_path / "out", "4bit")


def test_another_model_is_refused_by_its_type(source: Path, tmp_path: Path) -> None:
    (source / "config.json").write_text(json.dumps(CONFIG | {"model_type": "llama"}))
    _refused(source, tmp_path / "out", "'llama'")


def test_truncated_source_leaves_nothing(source: Path, tmp_path: Path) -> None:
    def truncate(done: int, total: int) -> None:
        with (source / "model.safetensors").open("rb+") as stream:
            stream.truncate(20_000)

    with pytest.raises(CheckpointError, match="ended inside"):
        convert_checkpoint(source, tmp_path / "out", "4bit", progress=truncate)
    assert [path.name for path in tmp_path.iterdir()] == ["source"]


def test_columns_that_do_not_fill_groups_are_refused_by_name(tmp_path: Path) -> None:
    tensors = source_tensors()
    for layer in (0, 1):
        mlp = f"model.language_model.layers.{layer}.mlp."
        for name, shape in (("gate_proj", (96, HIDDEN)), ("up_proj", (96, HIDDEN)), ("down_proj", (HIDDEN, 96))):
            tensors[f"{mlp}{name}.weight"] = mx.zeros(shape, dtype=mx.bfloat16)
    source = write_source(tmp_path / "source", tensors)
    text = dict(CONFIG["text_config"]) | {"intermediate_size": 96}  # type: ignore[call-overload]
    (source / "config.json").write_text(json.dumps(CONFIG | {"text_config": text}))
    _refused(source, tmp_path / "out", "down_proj.weight has 96 columns, not a multiple of the group size 64")
    convert_checkpoint(source, tmp_path / "out", "bf16")


def test_unknown_recipe_lists_the_known_ones(source: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="'3bit'; choose one of 4bit, 4bit-g32, 6bit, 8bit, qat, qat-f32, bf16"):
        convert_checkpoint(source, tmp_path / "out", "3bit")


def test_written_names_are_canonical_names_with_mlx_prefix(source: Path, tmp_path: Path) -> None:
    convert_checkpoint(source, tmp_path / "out", "bf16")
    names = [info.name for info in read_headers(tmp_path / "out").values()]
    assert {canonical_name(name) for name in names} == {canonical_name(name) for name in source_tensors()}
    assert {name.split(".")[0] for name in names} == {
        "language_model",
        "vision_embedder",
        "embed_vision",
        "embed_audio",
    }
    assert all(name.startswith("language_model.model.") for name in names if name.startswith("language_model."))


def test_a_gpu_is_asked_by_one_thread_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mx, "default_device", lambda: mx.gpu)
    assert packing_threads(recipe_named("qat")) == 0
    assert packing_threads(recipe_named("4bit")) >= 1  # which computes on the host
