"""The random checkpoint: counts of the released one, files that convert and load, complete or absent."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
import pytest

from benchmarks import random_checkpoint as made
from benchmarks.random_checkpoint import main, random_checkpoint
from convert.conversion import convert_checkpoint
from gemma_mlx import load
from tests.golden.cases import HERE

MODEL, DRAFTER = HERE / "released_config.json", HERE / "released_drafter_config.json"


@pytest.mark.parametrize(
    ("config", "tensors", "numbers"),
    [(MODEL, 677, 11_959_730_224), (DRAFTER, 48, 422_856_964)],
    ids=["model", "drafter"],
)
def test_it_has_the_tensors_and_the_size_of_the_released_one(config: Path, tensors: int, numbers: int) -> None:
    checkpoint = random_checkpoint(config)
    assert (len(checkpoint.shapes), checkpoint.numbers) == (tensors, numbers)


def test_names_are_those_on_googles_disk() -> None:
    assert {
        "model.language_model.layers.47.self_attn.k_norm.weight",
        "model.vision_embedder.pos_embedding",
        "model.embed_audio.embedding_projection.weight",
    } <= set(random_checkpoint(MODEL).shapes)
    assert {"model.layers.0.layer_scalar", "model.embed_tokens.weight", "pre_projection.weight"} <= set(
        random_checkpoint(DRAFTER).shapes
    )


@pytest.fixture
def narrow(tmp_path: Path) -> Callable[[Path], Path]:
    """A released config with small widths, so that it is written in a moment."""

    def write(released: Path) -> Path:
        config = json.loads(released.read_text(encoding="utf-8"))
        wide = {"hidden_size": 128, "intermediate_size": 256, "num_attention_heads": 4, "num_key_value_heads": 2}
        config["text_config"] |= wide | {"head_dim": 64, "global_head_dim": 128}
        if "vision_config" in config:
            config["vision_config"]["mm_embed_dim"] = 128
        else:
            config["backbone_hidden_size"] = 128
        path = tmp_path / released.name
        path.write_text(json.dumps(config), encoding="utf-8")
        return path

    return write


def test_it_is_converted_and_answers_with_its_drafter(tmp_path: Path, narrow: Callable[[Path], Path]) -> None:
    for config, layers, out, packed in ((MODEL, "7", "model", "4bit"), (DRAFTER, "2", "drafter", "4bit/drafter")):
        command = [str(narrow(config)), str(tmp_path / out), "--layers", layers, "--vocabulary", "1200"]
        assert main(command) == 0
        convert_checkpoint(tmp_path / out, tmp_path / packed, "4bit")
    gemma = load(tmp_path / "4bit")
    assert gemma.drafter is not None
    logits = gemma.model.logits(gemma.model(gemma.model.embed_tokens(mx.array([[2, 7, 9]])), gemma.model.make_caches()))
    assert np.isfinite(np.array(logits)).all()
    assert np.array(logits).std() > 0.01
    reply = gemma.reply([{"role": "user", "content": "Hello"}], max_tokens=4)
    assert reply.generated_tokens


def test_numbers_are_normal_norms_are_1_and_biases_0(tmp_path: Path, narrow: Callable[[Path], Path]) -> None:
    assert main([str(narrow(MODEL)), str(tmp_path / "out"), "--layers", "1", "--vocabulary", "40000"]) == 0
    arrays = {
        name: array for file in (tmp_path / "out").glob("*.safetensors") for name, array in mx.load(str(file)).items()
    }
    assert set(arrays) == set(json.loads((tmp_path / "out/model.safetensors.index.json").read_text())["weight_map"])
    table = np.array(arrays["model.language_model.embed_tokens.weight"].astype(mx.float32))
    assert table.size > made.BLOCK_NUMBERS  # several slices
    assert (table.mean(), table.std()) == pytest.approx((0, 0.02), abs=2e-4)
    assert len(np.unique(table[:, 0])) > 1000
    vector = np.array(arrays["model.vision_embedder.patch_ln1.bias"].astype(mx.float32))
    assert not vector.any()
    for name in (
        "language_model.norm.weight",
        "vision_embedder.patch_ln1.weight",
        "language_model.layers.0.layer_scalar",
    ):
        assert (np.array(arrays[f"model.{name}"].astype(mx.float32)) == 1).all()


def test_a_seed_settles_every_byte(tmp_path: Path, narrow: Callable[[Path], Path]) -> None:
    config, contents = narrow(MODEL), []
    for out, seed in (("a", "3"), ("b", "3"), ("c", "4")):
        assert main([str(config), str(tmp_path / out), "--layers", "1", "--vocabulary", "1152", "--seed", seed]) == 0
        contents.append({file.name: file.read_bytes() for file in (tmp_path / out).iterdir()})
    assert contents[0] == contents[1]
    assert contents[0] != contents[2]


def full_disk(*_: Any) -> None:
    raise OSError(28, "No space left on device")


def interrupted(*_: Any) -> None:
    raise KeyboardInterrupt


@pytest.mark.parametrize(
    ("fault", "code", "told"),
    [(full_disk, 1, "No space left on device; nothing was kept"), (interrupted, 130, "writing")],
)
def test_it_is_complete_or_absent(
    tmp_path: Path,
    narrow: Callable[[Path], Path],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    fault: Callable[..., None],
    code: int,
    told: str,
) -> None:
    monkeypatch.setattr(made.ShardWriter, "write", fault)
    assert main([str(narrow(MODEL)), str(tmp_path / "out"), "--layers", "1", "--vocabulary", "1152"]) == code
    assert told in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == [MODEL.name]


def test_a_small_disk_is_refused_before_anything_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: shutil._ntuple_diskusage(2, 1, 23_919_460_448))  # type: ignore[attr-defined]
    monkeypatch.setattr(made.ShardWriter, "write", interrupted)  # would be 130
    assert main([str(MODEL), str(tmp_path / "out")]) == 1
    assert "need 23.92 GB and the disk has 23.92 GB free" in capsys.readouterr().err  # the headers are too much
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--layers", "0"], "ask for 1 to 48 layers"),
        (["--layers", "49"], "ask for 1 to 48 layers"),
        (["--vocabulary", "1151"], "the tokenizer has 1,152 tokens and the model 262,144"),
        (["--vocabulary", "262145"], "the tokenizer has 1,152 tokens and the model 262,144"),
    ],
)
def test_what_it_cannot_have_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], options: list[str], told: str
) -> None:
    assert main([str(MODEL), str(tmp_path / "out"), *options]) == 2
    assert told in capsys.readouterr().err


def test_nothing_is_overwritten(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(MODEL), str(tmp_path), "--layers", "1"]) == 2
    assert "exists and is not overwritten" in capsys.readouterr().err


def test_another_model_is_refused_by_name(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "llama"}')
    assert main([str(tmp_path / "config.json"), str(tmp_path / "out")]) == 1
    assert "'llama'" in capsys.readouterr().err


def test_a_drafter_with_ordered_embeddings_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ordered = {**json.loads(DRAFTER.read_text(encoding="utf-8")), "use_ordered_embeddings": True}
    (tmp_path / "config.json").write_text(json.dumps(ordered))
    assert main([str(tmp_path / "config.json"), str(tmp_path / "out")]) == 2
    assert "ordered embeddings" in capsys.readouterr().err
