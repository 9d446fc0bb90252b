"""What lies in a folder is told from its headers, and a file that cannot be trusted is refused in one line."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import mlx.core as mx
import pytest

from gemma_mlx.checkpoint import (
    INDEX_FILE,
    SAMPLE_EVERY_BYTES,
    WHOLE_BYTES,
    fingerprint,
    read_header,
    read_headers,
    tensor_files,
)
from gemma_mlx.errors import CheckpointError


def entry(start: int, stop: int, shape: list[int], dtype: str = "F32") -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [start, stop]}


def write(file: Path, header: object, data_bytes: int, raw: bytes | None = None) -> Path:
    encoded = raw if raw is not None else json.dumps(header).encode()
    file.write_bytes(struct.pack("<Q", len(encoded)) + encoded + bytes(data_bytes))
    return file


def refusal(read: Any, path: Path) -> str:
    with pytest.raises(CheckpointError) as caught:
        read(path)
    message = str(caught.value)
    assert "\n" not in message
    return message


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "model.safetensors"


def test_header_tells_where_each_tensor_lies(file: Path) -> None:
    header = {"__metadata__": {"format": "pt"}, "b": entry(8, 14, [3], "BF16"), "a": entry(0, 8, [2, 1])}
    write(file, header, 14)
    base = file.stat().st_size - 14
    first, second = read_header(file)
    assert (first.name, first.shape, first.dtype, first.nbytes) == ("a", (2, 1), "F32", 8)
    assert (second.name, second.start, second.stop) == ("b", base + 8, base + 14)


def test_header_agrees_with_mlx(file: Path) -> None:
    arrays = {"model.language_model.norm.weight": mx.arange(6.0).reshape(2, 3), "model.x": mx.zeros(4, mx.bfloat16)}
    mx.save_safetensors(str(file), arrays)
    infos = read_headers(file.parent)
    assert set(infos) == {"language_model.norm.weight", "x"}
    info = infos["language_model.norm.weight"]
    assert struct.unpack("<6f", file.read_bytes()[info.start : info.stop]) == (0, 1, 2, 3, 4, 5)


@pytest.mark.parametrize("kept", [0, 5, 8, 40])
def test_truncated_file_is_refused(file: Path, kept: int) -> None:
    write(file, {"a": entry(0, 8, [2])}, 8)
    file.write_bytes(file.read_bytes()[:kept])
    assert "is damaged: its header should have" in refusal(read_header, file)


def test_file_without_its_last_byte_is_refused(file: Path) -> None:
    write(file, {"a": entry(0, 8, [2])}, 7)
    assert "the bytes of a overlap others or lie beyond" in refusal(read_header, file)


@pytest.mark.parametrize("length", [0, 1, 10_000, 2**40, 2**64 - 1])
def test_header_longer_than_the_file_is_refused(file: Path, length: int) -> None:
    file.write_bytes(struct.pack("<Q", length) + b"{}" + bytes(100))
    assert f"its header should have {length:,} bytes" in refusal(read_header, file)


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ({"a": entry(0, 8, [2]), "b": entry(4, 12, [2])}, "the bytes of b overlap"),
        ({"a": entry(0, 8, [2]), "b": entry(0, 8, [2])}, "the bytes of b overlap"),
        ({"a": entry(8, 16, [2])}, "lie beyond the file"),
        ({"a": entry(0, 2**62, [2**60])}, "lie beyond the file"),
        ({"a": entry(-8, 0, [2])}, "a has shape [2] at bytes -8 to 0"),
        ({"a": entry(8, 0, [2])}, "a has -8 bytes"),
        ({"a": entry(0, 8, [3])}, "a has 8 bytes for shape [3] of F32"),
        ({"a": entry(0, 8, [-1, -2])}, "shape [-1, -2]"),
        ({"a": entry(0, 8, [2], "I32")}, "holds a as I32; gemma-mlx reads BF16, F32, U32, U8, I64"),
        ({"a": {"dtype": "F32", "shape": [2]}}, "does not make sense"),
        ({"a": {"dtype": "F32", "shape": [2], "data_offsets": [0]}}, "does not make sense"),
        ({"a": {"dtype": "F32", "shape": None, "data_offsets": [0, 8]}}, "does not make sense"),
        ({"a": entry(0, 8, [float("inf")])}, "does not make sense"),  # type: ignore[list-item]
        ({"a": 5}, "does not make sense"),
        ([1], "does not make sense"),
    ],
)
def test_header_that_lies_is_refused(file: Path, header: object, expected: str) -> None:
    write(file, header, 12)
    assert expected in refusal(read_header, file)


@pytest.mark.parametrize("raw", [b"{not json", b'"\xff\xfe"', b"[" * 100_000], ids=["no-json", "no-utf8", "too-deep"])
def test_header_that_is_not_json_is_refused(file: Path, raw: bytes) -> None:
    write(file, None, 0, raw)
    assert "does not make sense" in refusal(read_header, file)


def test_name_twice_in_a_header_is_refused(file: Path) -> None:
    one, two = json.dumps(entry(0, 4, [1])), json.dumps(entry(4, 8, [1]))
    write(file, None, 8, f'{{"a": {one}, "a": {two}}}'.encode())
    assert "a name stands in it twice" in refusal(read_header, file)


def test_one_tensor_under_two_spellings_is_refused(tmp_path: Path) -> None:
    write(tmp_path / "1.safetensors", {"model.language_model.norm.weight": entry(0, 4, [1])}, 4)
    write(tmp_path / "2.safetensors", {"language_model.model.norm.weight": entry(0, 4, [1])}, 4)
    assert "holds language_model.model.norm.weight twice" in refusal(read_headers, tmp_path)


def test_index_names_the_files(tmp_path: Path) -> None:
    for name in ("1.safetensors", "2.safetensors", "stray.safetensors"):
        write(tmp_path / name, {name: entry(0, 4, [1])}, 4)
    index = {"weight_map": {"a": "2.safetensors", "b": "1.safetensors", "c": "2.safetensors"}}
    (tmp_path / INDEX_FILE).write_text(json.dumps(index))
    assert [file.name for file in tensor_files(tmp_path)] == ["1.safetensors", "2.safetensors"]


@pytest.mark.parametrize(
    "name", ["../1.safetensors", "/etc/passwd", "deeper/1.safetensors", "..", "", ".", "model.bin"]
)
def test_index_that_leaves_the_folder_is_refused(tmp_path: Path, name: str) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    write(tmp_path / "1.safetensors", {}, 0)
    (folder / INDEX_FILE).write_text(json.dumps({"weight_map": {"a": name}}))
    message = refusal(tensor_files, folder)
    assert f"names {name!r}, which is no safetensors file of its folder" in message


@pytest.mark.parametrize("index", [{}, {"weight_map": []}, {"weight_map": {"a": 1}}])
def test_index_without_a_map_is_refused(tmp_path: Path, index: object) -> None:
    (tmp_path / INDEX_FILE).write_text(json.dumps(index))
    assert "has no weight_map" in refusal(tensor_files, tmp_path)


def test_unfinished_download_is_refused(tmp_path: Path) -> None:
    write(tmp_path / "1.safetensors", {}, 0)
    index = {"weight_map": {"a": "1.safetensors", "b": "2.safetensors", "c": "3.safetensors"}}
    (tmp_path / INDEX_FILE).write_text(json.dumps(index))
    assert "lacks 2 weight files, first 2.safetensors" in refusal(tensor_files, tmp_path)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("model.gguf", "is GGUF: llama.cpp and Ollama run it"),
        ("pytorch_model.bin", "pickled weights can run code"),
        ("model.pt", "pickled weights can run code"),
        ("README.md", "name a folder that holds a Gemma 4 12B checkpoint"),
    ],
)
def test_folder_without_safetensors_says_what_to_do(tmp_path: Path, name: str, expected: str) -> None:
    (tmp_path / name).write_bytes(b"")
    message = refusal(tensor_files, tmp_path)
    assert "no *.safetensors in" in message
    assert expected in message


def test_a_fingerprint_tells_weights_of_the_same_shape_apart(file: Path) -> None:
    config = file.with_name("config.json")
    config.write_text("{}")
    numbers = mx.arange(4000.0)
    found = []
    for changed in (numbers, numbers, numbers * 2, numbers.astype(mx.bfloat16)):
        mx.save_safetensors(str(file), {"a": changed, "b": mx.zeros(3)})
        found.append(fingerprint(file.parent))
    config.write_text("{ }")
    found.append(fingerprint(file.parent))
    assert found[0] == found[1]
    assert len(set(found)) == 4


@pytest.mark.parametrize("large", [True, False])
@pytest.mark.parametrize("place", [0.0, 0.1, 0.3, 0.5, 0.77, 1.0])
def test_a_fingerprint_sees_a_change_anywhere_in_a_tensor(file: Path, place: float, large: bool) -> None:
    """In a large one, of a MiB, as the least that training changes; in a small one, of a single byte."""
    file.with_name("config.json").write_text("{}")
    mx.save_safetensors(str(file), {"large": mx.zeros(5 << 20, mx.uint32), "small": mx.zeros(WHOLE_BYTES // 4)})
    before = fingerprint(file.parent)
    [info] = [info for info in read_header(file) if info.name == ("large" if large else "small")]
    changed_bytes = SAMPLE_EVERY_BYTES if large else 1
    with file.open("r+b") as stream:
        stream.seek(info.start + int((info.nbytes - changed_bytes) * place))
        stream.write(b"x" * changed_bytes)
    assert fingerprint(file.parent) != before
