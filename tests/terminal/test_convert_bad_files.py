"""Checkpoints that are damaged, or made to do harm: each is one line, and nothing is written."""

from __future__ import annotations

import json
import pickle
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mlx.core as mx
import pytest

from gemma_mlx.checkpoint import INDEX_FILE
from tests.convert.small_source import source_tensors, write_source
from tests.terminal.conftest import Run

NORM, QUERY = "model.language_model.norm.weight", "model.language_model.layers.0.self_attn.q_proj.weight"
Damage = Callable[[Path], None]


def weights(folder: Path) -> Path:
    return folder / "model.safetensors"


def header_of(file: Path) -> tuple[dict[str, Any], bytes]:
    raw = file.read_bytes()
    (length,) = struct.unpack("<Q", raw[:8])
    return json.loads(raw[8 : 8 + length]), raw[8 + length :]


def write(file: Path, header: bytes, data: bytes) -> None:
    file.write_bytes(struct.pack("<Q", len(header)) + header + data)


def with_header(change: Callable[[dict[str, Any]], None]) -> Damage:
    def damage(folder: Path) -> None:
        header, data = header_of(weights(folder))
        change(header)
        write(weights(folder), json.dumps(header).encode(), data)

    return damage


def with_entry(key: str, value: object) -> Damage:
    return with_header(lambda header: header[NORM].update({key: value}))


def with_bytes(place: int, content: bytes) -> Damage:
    def damage(folder: Path) -> None:
        with weights(folder).open("r+b") as stream:
            stream.seek(place)
            stream.write(content)

    return damage


def with_raw_header(raw: bytes) -> Damage:
    return lambda folder: write(weights(folder), raw, header_of(weights(folder))[1])


def with_tensors(change: Callable[[dict[str, mx.array]], None]) -> Damage:
    def damage(folder: Path) -> None:
        tensors = source_tensors()
        change(tensors)
        mx.save_safetensors(str(weights(folder)), tensors)

    return damage


def truncated(kept: Callable[[int], int]) -> Damage:
    def damage(folder: Path) -> None:
        whole = weights(folder).read_bytes()
        weights(folder).write_bytes(whole[: kept(len(whole))])

    return damage


def with_a_tail(folder: Path) -> None:
    with weights(folder).open("ab") as stream:
        stream.write(b"tail")


def twice_in_a_header(folder: Path) -> None:
    header, data = header_of(weights(folder))
    text = json.dumps(header)
    write(weights(folder), (text[:-1] + f', "{NORM}": {json.dumps(header[NORM])}}}').encode(), data)


def shifted(gap: int) -> Damage:
    """The last tensor's bytes moved by `gap` from where the others end."""

    def change(header: dict[str, Any]) -> None:
        last = max((name for name in header if name != "__metadata__"), key=lambda n: header[n]["data_offsets"])
        header[last]["data_offsets"] = [place + gap for place in header[last]["data_offsets"]]

    def damage(folder: Path) -> None:
        with_header(change)(folder)
        with weights(folder).open("ab") as stream:
            stream.write(bytes(max(gap, 0)))

    return damage


def in_shards(folder: Path) -> dict[str, str]:
    """The checkpoint in two files and an index; the index's weight_map."""
    tensors = source_tensors()
    weights(folder).unlink()
    parts = {"a.safetensors": list(tensors)[::2], "b.safetensors": list(tensors)[1::2]}
    for name, part in parts.items():
        mx.save_safetensors(str(folder / name), {tensor: tensors[tensor] for tensor in part})
    weight_map = {tensor: name for name, part in parts.items() for tensor in part}
    write_index(folder, weight_map)
    return weight_map


def write_index(folder: Path, weight_map: dict[str, str]) -> None:
    (folder / INDEX_FILE).write_text(json.dumps({"weight_map": weight_map}))


def mapped_to(file_name: str) -> Damage:
    def damage(folder: Path) -> None:
        weight_map = in_shards(folder)
        write_index(folder, weight_map | {NORM: file_name.format(folder=folder)})

    return damage


def link_out_of_the_folder(folder: Path) -> None:
    in_shards(folder)
    (folder / "b.safetensors").rename(folder.parent / "elsewhere.safetensors")
    (folder / "b.safetensors").symlink_to(folder.parent / "elsewhere.safetensors")


def twice_in_shards(folder: Path) -> None:
    weight_map = in_shards(folder)
    tensors = source_tensors()
    part = [name for name in tensors if weight_map[name] == "b.safetensors"]
    first = next(name for name in tensors if weight_map[name] == "a.safetensors")
    mx.save_safetensors(str(folder / "b.safetensors"), {name: tensors[name] for name in [*part, first]})


def swapped_in_the_map(folder: Path) -> None:
    weight_map = in_shards(folder)
    first, second = min(weight_map, key=weight_map.__getitem__), max(weight_map, key=weight_map.__getitem__)
    write_index(folder, weight_map | {first: weight_map[second], second: weight_map[first]})


def pickled(name: str) -> Damage:
    def damage(folder: Path) -> None:
        weights(folder).unlink()
        (folder / name).write_bytes(pickle.dumps({NORM: [1.0]}))

    return damage


def second_spelling(tensors: dict[str, mx.array]) -> None:
    tensors[NORM.replace("model.language_model.", "language_model.model.")] = tensors[NORM]


def value(number: float) -> Callable[[dict[str, mx.array]], None]:
    def change(tensors: dict[str, mx.array]) -> None:
        tensors[QUERY][3, 5] = number

    return change


CORPUS: dict[str, tuple[Damage, str]] = {
    "empty": (truncated(lambda size: 0), "header should have 0 bytes, the file has 0"),
    "cut in its header": (truncated(lambda size: 100), "header should have"),
    "cut in its data": (truncated(lambda size: size // 2), "lie beyond the file's"),
    "without its last byte": (truncated(lambda size: size - 1), "lie beyond the file's"),
    "header of no length": (with_bytes(0, bytes(8)), "header should have 0 bytes"),
    "header beyond the file": (with_bytes(0, struct.pack("<Q", 10**7)), "header should have 10,000,000 bytes"),
    "header of 2^64 bytes": (with_bytes(0, b"\xff" * 8), "header should have 18,446,744,073,709,551,615 bytes"),
    "header not in UTF-8": (with_raw_header(b'{"\xff\xfe": 1}'), "does not make sense"),
    "header not JSON": (with_raw_header(b"{'a': 1}"), "does not make sense"),
    "header no object": (with_raw_header(b"[[]]"), "does not make sense"),
    "header of deep JSON": (with_raw_header(b'{"a":' * 50_000), "does not make sense"),
    "number of 5000 digits": (with_raw_header(b'{"a": ' + b"9" * 5000 + b"}"), "does not make sense"),
    "metadata no object": (with_header(lambda header: header.update(__metadata__=5)), "does not make sense"),
    "metadata no text": (with_header(lambda header: header.update(__metadata__={"a": 1})), "does not make sense"),
    "overlap": (shifted(-2), "overlap others"),
    "gap": (shifted(64), "64 bytes before"),
    "bytes after the last": (with_a_tail, "4 bytes at its end"),
    "offsets backwards": (with_entry("data_offsets", [8, 0]), "-8 bytes"),
    "offsets negative": (with_entry("data_offsets", [-128, 0]), "does not make sense"),
    "offsets huge": (with_entry("data_offsets", [2**63, 2**63 + 128]), "lie beyond the file's"),
    "one offset": (with_entry("data_offsets", [0]), "does not make sense"),
    "offsets in words": (with_entry("data_offsets", ["0", "128"]), "does not make sense"),
    "offsets true": (with_entry("data_offsets", [False, True]), "does not make sense"),
    "dims negative": (with_entry("shape", [-64]), "does not make sense"),
    "dims huge": (with_entry("shape", [2**62]), "does not make sense"),
    "dims true": (with_header(lambda header: header[NORM].update(shape=[64, True])), "does not make sense"),
    "dims with a point": (with_entry("shape", [64.0]), "does not make sense"),
    "dims none": (with_entry("shape", None), "does not make sense"),
    "shape and bytes differ": (with_entry("shape", [63]), "128 bytes for shape [63]"),
    "dtype and bytes differ": (with_entry("dtype", "F32"), "128 bytes for shape [64] of F32"),
    "float16": (with_entry("dtype", "F16"), "holds float16"),
    "unknown dtype": (with_entry("dtype", "F8_E4M3"), "as F8_E4M3"),
    "dtype of no kind": (with_entry("dtype", {"a": 1}), "gemma-mlx reads BF16"),
    "integers for weights": (
        with_tensors(lambda tensors: tensors.update({NORM: mx.zeros(64, mx.int64)})),
        "is stored as I64",
    ),
    "another shape": (with_entry("shape", [8, 8]), "has shape [8, 8], but config.json asks for [64]"),
    "name twice in a header": (twice_in_a_header, "a name stands in it twice"),
    "name twice in shards": (twice_in_shards, "twice; download"),
    "one tensor in two spellings": (with_tensors(second_spelling), "twice; download"),
    "map to a parent": (mapped_to("../a.safetensors"), "no safetensors file of its folder"),
    "map to the root": (mapped_to("/etc/a.safetensors"), "no safetensors file of its folder"),
    "map to the folder's full path": (mapped_to("{folder}/a.safetensors"), "no safetensors file of its folder"),
    "map to a pickle": (mapped_to("model.bin"), "no safetensors file of its folder"),
    "link out of the folder": (link_out_of_the_folder, "is a link to a file outside its folder"),
    "map to another file": (swapped_in_the_map, "says that"),
    "map to a missing shard": (mapped_to("c.safetensors"), "lacks 1 weight files, first c.safetensors"),
    "map to a name too long": (mapped_to(f"{'c' * 300}.safetensors"), "lacks 1 weight files, first ccc"),
    "pickle": (pickled("pytorch_model.bin"), "pickled weights can run code"),
    "torch pickle": (pickled("model.pt"), "pickled weights can run code"),
    "pickle with another name": (pickled("model.safetensors"), "is damaged: its header should have"),
    "NaN": (with_tensors(value(float("nan"))), "holds NaN or infinity"),
    "infinity": (with_tensors(value(float("inf"))), "holds NaN or infinity"),
}


@pytest.mark.parametrize("name", CORPUS)
def test_a_bad_checkpoint_is_one_line_and_nothing_is_written(run: Run, tmp_path: Path, name: str) -> None:
    damage, told = CORPUS[name]
    source = write_source(tmp_path / "source")
    damage(source)
    before = sorted(tmp_path.rglob("*"))
    ended = run("convert", source, tmp_path / "new" / "out")
    assert (ended.code, ended.out) == (1, "")
    assert told in ended.errors[0]
    assert ended.err == ended.errors[0] + "\n"
    assert sorted(tmp_path.rglob("*")) == before


def test_the_same_files_undamaged_are_converted(run: Run, tmp_path: Path) -> None:
    """In one file, in shards, and as the cache of Hugging Face keeps them: links to blobs."""
    whole, shards = write_source(tmp_path / "whole"), write_source(tmp_path / "shards")
    in_shards(shards)
    snapshot, blobs = tmp_path / "cache" / "snapshots" / "1234", tmp_path / "cache" / "blobs"
    blobs.mkdir(parents=True)
    snapshot.mkdir(parents=True)
    for path in shards.iterdir():
        (blobs / f"blob-{path.name}").write_bytes(path.read_bytes())
        (snapshot / path.name).symlink_to(Path("../../blobs") / f"blob-{path.name}")
    converted: list[dict[str, list[int]]] = []
    for source in (whole, shards, snapshot):
        out = tmp_path / f"{source.name}-out"
        assert run("convert", source, out).code == 0
        arrays = mx.load(str(out / "model-00001-of-00001.safetensors"))
        assert isinstance(arrays, dict)
        converted.append({name: array.view(mx.uint8).flatten().tolist() for name, array in arrays.items()})  # type: ignore[misc]
    assert converted[0] == converted[1] == converted[2]
