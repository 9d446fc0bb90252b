"""A checkpoint becomes a folder that MLX programs load: read, packed and written a slice at a time.

The folder appears whole or not at all: it is written beside its place as NAME.partial and renamed at the end.
"""

from __future__ import annotations

import json
import math
import os
import shutil
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mlx.core as mx

from convert.packing import pack_rows
from convert.recipes import Packing, Recipe, module_kind, recipe_named
from convert.shards import OutputTensor, Shard, ShardWriter, plan_shards
from convert.source import SourceTensor, read_source
from convert.tally import Tally
from gemma_mlx.checkpoint import INDEX_FILE
from gemma_mlx.config import read_json
from gemma_mlx.errors import CheckpointError, UsageError
from gemma_mlx.inputs.prompt import PromptBuilder
from gemma_mlx.names import mlx_name

SHARD_BYTES = 5_000_000_000
TEXT_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "chat_template.jinja",
    "processor_config.json",
    "generation_config.json",
    "special_tokens_map.json",
)
"""Copied as they are, where the source has them."""

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class ConversionReport:
    """What a conversion did."""

    tensors: int
    """Read from the source."""
    bytes_written: int
    """Size of the folder."""
    bits_per_weight: float
    """Bits on disk for a number of the source, averaged over all tensors, scales and biases included."""
    changes: dict[str, Tally]
    """What packing changed, for each kind of packed module ("q_proj", ...)."""
    seconds: float
    is_drafter: bool
    """Whether the source was a drafter and not the model itself."""


@dataclass(frozen=True)
class _Job:
    """One tensor of the source and what becomes of it."""

    tensor: SourceTensor
    kind: str
    packing: Packing | None
    """None where it stays whole."""
    outputs: tuple[OutputTensor, ...]
    """Weight, or weight, scales and biases."""


def convert_checkpoint(
    source: Path,
    destination: Path,
    recipe: str,
    *,
    progress: Progress | None = None,
    shard_bytes: int = SHARD_BYTES,
) -> ConversionReport:
    """Writes the model or drafter in `source` to the new folder `destination`, packed by `recipe`.

    Afterwards `destination` holds a model under MLX's names in the precision asked for, with config and tokenizer;
    after any error or interruption it does not exist and nothing of it remains, nor of parent folders made for it.
    `progress` is called with the bytes of the source that are done and their total. A shard has at most `shard_bytes`
    of numbers.

    Raises UsageError for an unknown recipe and a `destination` that exists, CheckpointError for a source that is not
    an unpacked Gemma 4 12B or its drafter, lacks its tokenizer or chat template (a drafter needs none), does not fit
    the recipe, or is damaged, and for a disk that is too small. Warns (GemmaWarning) of a key of config.json that is
    unknown here.
    """
    started = time.perf_counter()
    chosen = recipe_named(recipe)
    if os.path.lexists(destination):
        raise UsageError(f"{destination} exists and is not overwritten; name a new folder or remove it first")
    found = read_source(source)
    jobs = [_job(name, tensor, chosen, found.is_drafter) for name, tensor in found.tensors.items()]
    if not found.is_drafter:
        PromptBuilder.from_folder(source)  # raises where tokenizer or chat template are missing or damaged
    shards = plan_shards([job.outputs for job in jobs], shard_bytes)
    with _appearing_whole(destination) as folder:
        _write_text_side(source, folder, chosen, shards)
        _check_space(folder, sum(shard.nbytes for shard in shards))
        changes = _write_shards(folder, jobs, shards, progress or (lambda done, total: None))
        bytes_written = sum(file.stat().st_size for file in folder.iterdir())
    numbers = sum(math.prod(job.tensor.shape) for job in jobs)
    return ConversionReport(
        tensors=len(jobs),
        bytes_written=bytes_written,
        bits_per_weight=8 * sum(shard.tensor_bytes for shard in shards) / numbers,
        changes=changes,
        seconds=time.perf_counter() - started,
        is_drafter=found.is_drafter,
    )


def _job(name: str, tensor: SourceTensor, recipe: Recipe, is_drafter: bool) -> _Job:
    path = tensor.name if is_drafter else mlx_name(name)  # drafters have one spelling everywhere
    packing = recipe.packing_of(name)
    if packing is None:
        dtype = "I64" if tensor.dtype == "I64" else "BF16"
        return _Job(tensor, "", None, (OutputTensor(path, dtype, tensor.shape),))
    rows, columns = tensor.shape
    if columns % packing.group_size:
        raise CheckpointError(
            f"{tensor.name} has {columns} columns, not a multiple of the group size {packing.group_size}: it cannot be "
            "packed; use the recipe bf16"
        )
    module = path.removesuffix(".weight")
    groups = columns // packing.group_size
    outputs = (
        OutputTensor(path, "U32", (rows, columns * packing.bits // 32)),
        OutputTensor(f"{module}.scales", "BF16", (rows, groups)),
        OutputTensor(f"{module}.biases", "BF16", (rows, groups)),
    )
    return _Job(tensor, module_kind(name), packing, outputs)


@contextmanager
def _appearing_whole(destination: Path) -> Iterator[Path]:
    """A folder to write into, which is `destination` when the block ends well, and gone when it does not."""
    partial = destination.with_name(destination.name + ".partial")
    if os.path.lexists(partial):
        raise CheckpointError(
            f"{partial} exists: another conversion is writing it, or one was killed; remove it if none runs"
        )
    new_parents = [folder for folder in partial.parents if not os.path.lexists(folder)]
    try:
        partial.parent.mkdir(parents=True, exist_ok=True)
        partial.mkdir()
    except OSError as error:
        _remove_empty(new_parents)
        raise CheckpointError(f"cannot write {partial}: {error.strerror}; name another folder") from None
    try:
        yield partial
        for file in (*partial.iterdir(), partial):
            _sync(file)
        partial.rename(destination)
        _sync(destination.parent)
    except BaseException as error:
        shutil.rmtree(partial, ignore_errors=True)
        _remove_empty(new_parents)
        if isinstance(error, OSError):
            raise CheckpointError(f"the conversion to {destination} failed: {error}; nothing was kept") from None
        raise


def _remove_empty(folders: list[Path]) -> None:
    for folder in folders:
        with suppress(OSError):
            folder.rmdir()


def _sync(path: Path) -> None:
    """Waits until a file, or the names in a folder, are on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _write_text_side(source: Path, folder: Path, recipe: Recipe, shards: list[Shard]) -> None:
    """Config, index and tokenizer: everything but the weights."""
    for name in TEXT_FILES:
        if (source / name).is_file():
            shutil.copyfile(source / name, folder / name)
    config = read_json(source / "config.json")
    for key in ("quantization", "quantization_config"):  # mlx-lm reads the first, others the second
        config.pop(key, None)
        if recipe.packing is not None:
            config[key] = _config_entry(recipe.packing) | {
                mlx_name(path): _config_entry(packing) for path, packing in recipe.overrides.items()
            }
    _write_json(folder / "config.json", config)
    index = {
        "metadata": {"total_size": sum(shard.tensor_bytes for shard in shards)},
        "weight_map": dict(sorted((name, shard.file_name) for shard in shards for name in shard.places)),
    }
    _write_json(folder / INDEX_FILE, index)


def _config_entry(packing: Packing) -> dict[str, Any]:
    return {"group_size": packing.group_size, "bits": packing.bits, "mode": "affine"}


def _write_json(path: Path, data: dict[str, Any]) -> None:
    path.write_text(json.dumps(data, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def _check_space(folder: Path, needed_bytes: int) -> None:
    free_bytes = shutil.disk_usage(folder).free
    if needed_bytes > free_bytes:
        raise CheckpointError(
            f"the weights need {needed_bytes / 1e9:,.2f} GB and {folder.parent} has {free_bytes / 1e9:,.2f} GB free; "
            "free some or name a folder on another disk"
        )


def _write_shards(folder: Path, jobs: list[_Job], shards: list[Shard], progress: Progress) -> dict[str, Tally]:
    """Converts every tensor; what that changed, for each kind of packed module."""
    total_bytes, done_bytes = sum(job.tensor.nbytes for job in jobs), 0
    changes: dict[str, Tally] = defaultdict(Tally)
    for shard in shards:
        with ShardWriter(folder, shard) as writer:
            for job in (job for job in jobs if job.outputs[0].name in shard.places):
                for rows in job.tensor.slices():
                    tally = _write_slice(writer, job, rows)
                    if job.packing is not None:
                        changes[job.kind] += tally
                    done_bytes += rows.nbytes
                    progress(done_bytes, total_bytes)
    return dict(sorted(changes.items()))


def _write_slice(writer: ShardWriter, job: _Job, rows: mx.array) -> Tally:
    if job.packing is None:
        writer.write(job.outputs[0].name, rows if rows.dtype == mx.int64 else rows.astype(mx.bfloat16))
        return Tally()
    packed = pack_rows(rows, job.packing)
    for output, part in zip(job.outputs, (packed.codes, packed.scales, packed.biases), strict=True):
        writer.write(output.name, part)
    return packed.tally
