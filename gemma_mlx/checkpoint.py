"""Which tensors lie in a model folder, from the safetensors headers alone, and whether the files can be trusted.

A header is data from a stranger: its length, each offset and each shape is checked against the file before anything
is read. Only safetensors are read, never pickles.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import struct
from collections.abc import Container, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from gemma_mlx.config import read_json
from gemma_mlx.errors import CheckpointError
from gemma_mlx.names import canonical_name
from gemma_mlx.other_formats import gguf_refusal

INDEX_FILE = "model.safetensors.index.json"
MAX_HEADER_BYTES = 100_000_000
"""As in the safetensors library."""
WHOLE_BYTES = 1 << 16
"""A fingerprint reads tensors up to this size whole: norms, scalars."""
SAMPLE_BYTES, SAMPLE_EVERY_BYTES, LEAST_SAMPLES = 256, 1 << 20, 16
"""Of a larger one so many bytes at so many places at least, evenly from its first byte to its last."""
DTYPE_BYTES = {"BF16": 2, "F32": 4, "U32": 4, "U8": 1, "I64": 8}
"""What a Gemma 4 folder may hold (U32: packed numbers; U8: the scales of MLX's float modes; I64: the order of tokens
in a drafter; each nothing else)."""
_STORED_BYTES = DTYPE_BYTES | {"F16": 2}
"""The same of all files that are read: an adapter's factors may be float16; numbers of the model leave its range."""


@dataclass(frozen=True)
class TensorInfo:
    """Where one tensor lies. `name` is the one on disk; bytes `start:stop` are counted from the file's beginning."""

    name: str
    file: Path
    dtype: str
    shape: tuple[int, ...]
    start: int
    stop: int

    @property
    def nbytes(self) -> int:
        return self.stop - self.start


def read_headers(folder: Path) -> dict[str, TensorInfo]:
    """Every tensor in `folder` by its canonical name. Raises CheckpointError in one line for anything wrong."""
    return join_headers(folder, [info for file in tensor_files(folder) for info in read_header(file)])


def join_headers(folder: Path, infos: Iterable[TensorInfo]) -> dict[str, TensorInfo]:
    """`infos` of all weight files by canonical name, each tensor once and where the index in `folder` says it lies."""
    tensors: dict[str, TensorInfo] = {}
    for info in infos:
        name = canonical_name(info.name)
        if info.dtype == "F16":
            raise CheckpointError(
                f"{info.file} holds float16 ({info.name}), in which Gemma 4 overflows; use the bfloat16 release"
            )
        if name in tensors:
            raise CheckpointError(f"{folder} holds {info.name} twice; download or convert it again")
        tensors[name] = info
    for stored, file_name in weight_map(folder).items():
        found = tensors.get(canonical_name(stored))
        if found is None or found.file.name != file_name:
            raise CheckpointError(
                f"{folder / INDEX_FILE} says that {stored} is in {file_name}; it is not: download both again"
            )
    return tensors


def with_whole(infos: Mapping[str, TensorInfo], whole: Mapping[str, TensorInfo]) -> dict[str, TensorInfo]:
    """`infos` with the unpacked tensors `whole` in place of those of the same name, packed or not."""
    unpacked = [name.removesuffix(".weight") for name in whole if name.endswith(".weight")]
    gone = {f"{module}.{part}" for module in unpacked for part in ("scales", "biases")}
    return {name: info for name, info in infos.items() if name not in gone} | dict(whole)


def require_tensors(
    folder: Path, infos: dict[str, TensorInfo], shapes: dict[str, tuple[int, ...]], model: str = "Gemma 4 12B"
) -> None:
    """Raises CheckpointError unless `folder` holds exactly the tensors in `shapes`, which are those of `model`."""
    missing, extra = sorted(shapes.keys() - infos.keys()), sorted(infos.keys() - shapes.keys())
    if missing:
        raise CheckpointError(f"{folder} lacks {len(missing)} tensors, first {missing[0]}; download it again")
    if extra:
        raise CheckpointError(
            f"{folder} holds {len(extra)} tensors that {model} does not have, first {infos[extra[0]].name}; "
            "it is another model, or an adapter was saved into it"
        )
    for name, shape in shapes.items():
        if not _is_right_kind(infos[name].dtype, name, shapes):
            raise CheckpointError(f"{infos[name].name} in {folder} is stored as {infos[name].dtype}; download it again")
        if infos[name].shape != shape:
            raise CheckpointError(
                f"{infos[name].name} in {folder} has shape {list(infos[name].shape)}, but config.json asks for "
                f"{list(shape)}; they are not of one model: download it again"
            )


def _is_right_kind(dtype: str, name: str, shapes: Container[str]) -> bool:
    """Whether the tensor `name` of a model that has those in `shapes` may be stored as `dtype`."""
    module, _, part = name.rpartition(".")
    if name.endswith("token_ordering"):
        return dtype == "I64"
    if part == "weight" and f"{module}.scales" in shapes:
        return dtype == "U32"
    if part == "scales" and f"{module}.biases" not in shapes:
        return dtype == "U8"
    return dtype in ("BF16", "F32")


def weight_map(folder: Path) -> dict[str, str]:
    """Tensor name -> the file in `folder` that holds it, as the index says; empty where there is no index."""
    index = folder / INDEX_FILE
    if not index.exists():
        return {}
    found = read_json(index).get("weight_map")
    if not isinstance(found, dict) or not found or not all(isinstance(name, str) for name in found.values()):
        raise CheckpointError(f"{index} has no weight_map; download it again")
    for name in found.values():
        if Path(name).name != name or not name.endswith(".safetensors"):
            raise CheckpointError(
                f"{index} names {name!r}, which is no safetensors file of its folder; do not use this checkpoint"
            )
    return found


def tensor_files(folder: Path) -> list[Path]:
    """The safetensors files of the model in `folder`: those its index names, else all."""
    named = [folder / name for name in sorted(set(weight_map(folder).values()))]
    files = named or sorted(folder.glob("*.safetensors"))
    if not files:
        raise CheckpointError(f"no *.safetensors in {folder}: {_what_else(folder)}")
    missing = [file.name for file in files if not os.path.isfile(file)]  # noqa: PTH113  # False also for a name that is too long
    if missing:
        raise CheckpointError(f"{folder} lacks {len(missing)} weight files, first {missing[0]}; finish the download")
    for file in named:
        if not _is_inside(file, folder):
            raise CheckpointError(f"{file} is a link to a file outside its folder; do not use this checkpoint")
    return files


def _is_inside(file: Path, folder: Path) -> bool:
    """Whether `file` lies in `folder`, or in the cache of Hugging Face, whose snapshots are links to its blobs."""
    home, target = folder.resolve(), file.resolve()
    return home in target.parents or (target.parent == home.parent.parent / "blobs" and home.parent.name == "snapshots")


def _what_else(folder: Path) -> str:
    if list(folder.glob("*.gguf")):
        return gguf_refusal("what it holds")
    if list(folder.glob("*.bin")) or list(folder.glob("*.pt")):
        return "pickled weights can run code and are not read; download the safetensors files"
    return "name a folder that holds a Gemma 4 12B checkpoint"


def fingerprint(folder: Path) -> str:
    """Tells the model in `folder` from any other, also from one of the same shape: a sha256 in hex.

    Over config.json, the headers, small tensors, and samples of each larger one, no more than 1 MiB apart: a model of
    24 GB need not be read for it. Training and quantization change numbers everywhere and are seen; a change that lies
    between two samples, as of a few rows of the token table, is not.
    """
    return fingerprint_of(folder / "config.json", tensor_files(folder))


def fingerprint_of(config_file: Path, files: Iterable[Path]) -> str:
    """The same of a config and the safetensors `files` that belong to it."""
    digest = hashlib.sha256(config_file.read_bytes())
    with ThreadPoolExecutor() as pool:  # a disk that is asked for many places at once answers sooner
        for file in files:
            digest.update(header_bytes(file))
            with file.open("rb", buffering=0) as stream:
                for samples in pool.map(partial(_samples, stream.fileno()), read_header(file)):
                    digest.update(samples)
    return digest.hexdigest()


def _samples(descriptor: int, info: TensorInfo) -> bytes:
    if info.nbytes <= WHOLE_BYTES:
        return os.pread(descriptor, info.nbytes, info.start)
    last, count = info.stop - SAMPLE_BYTES, max(LEAST_SAMPLES, 1 + -(-info.nbytes // SAMPLE_EVERY_BYTES))
    places = (info.start + (last - info.start) * index // (count - 1) for index in range(count))
    return b"".join(os.pread(descriptor, SAMPLE_BYTES, place) for place in places)


def header_bytes(file: Path) -> bytes:
    """The JSON text at the beginning of a safetensors file. Raises CheckpointError where there cannot be one."""
    with file.open("rb") as stream:
        return stream.read(header_length(file, file.stat().st_size, stream.read(8)))


def header_length(file: Path, size: int, start: bytes) -> int:
    """How long the header is, as the 8 bytes `start` of a file of `size` bytes say."""
    length: int = struct.unpack("<Q", start)[0] if len(start) == 8 else 0
    if not 2 <= length <= min(MAX_HEADER_BYTES, size - 8):
        raise _damaged(file, f"its header should have {length:,} bytes, the file has {size:,}")
    return length


def read_header(file: Path) -> list[TensorInfo]:
    """The tensors of one safetensors file, in order of their bytes, each checked against the file's size."""
    return parse_header(file, file.stat().st_size, header_bytes(file))


def parse_header(file: Path, size: int, raw: bytes) -> list[TensorInfo]:
    """The same for the header `raw` of a file of `size` bytes that may lie elsewhere."""
    try:
        header = json.loads(raw, object_pairs_hook=_refuse_duplicates)
        if not all(isinstance(value, str) for value in (header.get("__metadata__") or {}).values()):
            raise ValueError("its __metadata__ is not of texts")
        entries = {name: entry for name, entry in header.items() if name != "__metadata__"}
        infos = [_info(file, 8 + len(raw), name, entry) for name, entry in entries.items()]
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise _damaged(file, f"its header does not make sense ({error})") from None
    infos.sort(key=lambda info: (info.start, info.stop))
    end = 8 + len(raw)
    for info in infos:
        if info.start < end or info.stop > size:
            raise _damaged(file, f"the bytes of {info.name} overlap others or lie beyond the file's {size:,}")
        if info.start > end:
            raise _damaged(file, f"{info.start - end:,} bytes before {info.name} belong to no tensor")
        end = info.stop
    if end != size:
        raise _damaged(file, f"{size - end:,} bytes at its end belong to no tensor")
    return infos


def _damaged(file: Path, why: str) -> CheckpointError:
    return CheckpointError(f"{file} is damaged: {why}; download or convert it again")


def _refuse_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a name stands in it twice")
    return found


def _info(file: Path, base: int, name: str, entry: dict[str, Any]) -> TensorInfo:
    dtype, shape = str(entry["dtype"]), tuple(entry["shape"])
    start, stop = entry["data_offsets"]
    if not all(type(number) is int and number >= 0 for number in (*shape, start, stop)):  # True is none
        raise ValueError(f"{name} has shape {list(shape)} at bytes {start} to {stop}")
    if dtype not in _STORED_BYTES:
        raise CheckpointError(f"{file} holds {name} as {dtype}; gemma-mlx reads {', '.join(DTYPE_BYTES)}")
    if stop - start != math.prod(shape) * _STORED_BYTES[dtype]:
        raise ValueError(f"{name} has {stop - start} bytes for shape {list(shape)} of {dtype}")
    return TensorInfo(name, file, dtype, shape, base + start, base + stop)
