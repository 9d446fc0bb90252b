"""A checkpoint becomes a folder that MLX programs load: read, packed and written a slice at a time.

What one thread reads ahead others pack, and one more writes behind them. The folder appears whole or not at all;
a conversion that was stopped goes on where it was (partial_folder.py).
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy.typing as npt

import convert
from convert.journal import Identity
from convert.model_card import CARD_FILE, model_card
from convert.overlap import in_order
from convert.packed_source import PackedTensor, Repacking, count_repacking
from convert.packing import pack_rows
from convert.partial_folder import PartialFolder, partial_folder, refuse_existing
from convert.recipes import Packing, Recipe, module_kind, recipe_named
from convert.shards import OutputTensor, Shard, ShardWriter, as_numbers, plan_shards
from convert.source import Source, SourceTensor, read_source
from convert.tally import Tally
from convert.text_side import text_side
from convert.write_behind import WriteBehind
from gemma_mlx.decoding.saved_session import source_hash
from gemma_mlx.errors import CheckpointError
from gemma_mlx.names import mlx_name

SHARD_BYTES = 5_000_000_000
MOST_THREADS = 4
"""Packing, on a CPU; more would wait for the disk."""

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
    repacking: Repacking | None = None
    """What became of modules that the source held packed; None where it held none."""


@dataclass(frozen=True)
class _Job:
    """One tensor of the source and what becomes of it."""

    tensor: SourceTensor
    kind: str
    packing: Packing | None
    """None where it stays whole."""
    outputs: tuple[OutputTensor, ...]
    """Weight, or weight, scales and biases."""
    copied: tuple[SourceTensor, ...] = ()
    """What the outputs are copies of, where the source holds them packed as they are wanted."""


def convert_checkpoint(
    folder: Path,
    destination: Path,
    recipe: str,
    *,
    progress: Progress | None = None,
    shard_bytes: int = SHARD_BYTES,
    restart: bool = False,
) -> ConversionReport:
    """Writes the model or drafter in `folder` to the new folder `destination`, packed by the recipe of that name.

    See `convert_source`. Also raises UsageError for an unknown recipe, and CheckpointError for a folder that is not
    Gemma 4 12B or its drafter. Warns (GemmaWarning) of a key of config.json that is unknown here.
    """
    chosen = recipe_named(recipe)
    refuse_existing(destination)
    source = read_source(folder)
    return convert_source(source, destination, chosen, progress=progress, shard_bytes=shard_bytes, restart=restart)


def convert_source(
    source: Source,
    destination: Path,
    recipe: Recipe,
    *,
    progress: Progress | None = None,
    shard_bytes: int = SHARD_BYTES,
    restart: bool = False,
) -> ConversionReport:
    """Writes `source` to the new folder `destination`, packed by `recipe`.

    Afterwards `destination` holds a model under MLX's names in the precision asked for, with config, tokenizer and
    model card. A run that was stopped, by whatever means, is gone on with by the next one of the same source and
    recipe; `restart` throws away what another one left. After a refusal nothing remains. `progress` is called with the
    bytes of the source that are done and their total. A shard has at most `shard_bytes` of numbers.

    Raises UsageError for a `destination` that exists or is being made of something else, CheckpointError for a source
    that lacks its tokenizer or chat template (a drafter needs none), does not fit the recipe, or is damaged, and for a
    disk that is too small.
    """
    started = time.perf_counter()
    refuse_existing(destination)
    jobs = [_job(name, tensor, recipe, source.is_drafter) for name, tensor in source.tensors.items()]
    shards = plan_shards([job.outputs for job in jobs], shard_bytes)
    text = text_side(source, recipe, shards)
    tensor_bytes = sum(shard.tensor_bytes for shard in shards)
    bits_per_weight = 8 * tensor_bytes / sum(math.prod(job.tensor.shape) for job in jobs)
    repacking = count_repacking([(job.tensor, job.packing) for job in jobs if isinstance(job.tensor, PackedTensor)])
    bytes_written = sum(shard.nbytes for shard in shards) + sum(map(len, text.values()))
    with partial_folder(destination, _identity(source, recipe, shards, text), bytes_written, restart=restart) as work:
        for name, content in text.items():
            (work.folder / name).write_bytes(content)
        changes = _write_shards(work, jobs, shards, progress or (lambda done, total: None))
        card = model_card(source, recipe, tensor_bytes, bits_per_weight, changes, repacking).encode()
        (work.folder / CARD_FILE).write_bytes(card)
    return ConversionReport(
        tensors=len(jobs),
        bytes_written=bytes_written + len(card),
        bits_per_weight=bits_per_weight,
        changes=changes,
        seconds=time.perf_counter() - started,
        is_drafter=source.is_drafter,
        repacking=repacking,
    )


def _identity(source: Source, recipe: Recipe, shards: list[Shard], text: Mapping[str, bytes]) -> Identity:
    """All that the folder's bytes depend on, in words for the case that an unfinished one is of another."""
    layout, code = hashlib.sha256(), source_hash(Path(convert.__file__).parent)
    for shard in shards:
        layout.update(shard.header)
    return {
        "version of gemma-mlx": f"{code} with MLX {metadata.version('mlx')}",
        "recipe": recipe.name,
        "packing": json.dumps(asdict(recipe), sort_keys=True),
        **source.identity,
        "layout": layout.hexdigest(),
        **{name: hashlib.sha256(content).hexdigest() for name, content in text.items()},
    }


def _job(name: str, tensor: SourceTensor, recipe: Recipe, is_drafter: bool) -> _Job:
    path = tensor.name if is_drafter else mlx_name(name)  # drafters have one spelling everywhere
    module = path.removesuffix(".weight")
    packing = recipe.packing_of(name)
    if isinstance(tensor, PackedTensor) and tensor.is_stored_as(packing):
        names = (path, f"{module}.scales", f"{module}.biases")
        copies = (OutputTensor(name, part.dtype, part.shape) for name, part in zip(names, tensor.parts, strict=True))
        return _Job(tensor, module_kind(name), packing, tuple(copies), tensor.parts)
    if packing is None:
        dtype = "I64" if tensor.dtype == "I64" else "BF16"
        return _Job(tensor, "", None, (OutputTensor(path, dtype, tensor.shape),))
    rows, columns = tensor.shape
    if columns % packing.group_size:
        raise CheckpointError(
            f"{tensor.name} has {columns} columns, not a multiple of the group size {packing.group_size}: it cannot be "
            "packed; use the recipe bf16"
        )
    groups = columns // packing.group_size
    outputs = (
        OutputTensor(path, "U32", (rows, columns * packing.bits // 32)),
        OutputTensor(f"{module}.scales", "BF16", (rows, groups)),
        OutputTensor(f"{module}.biases", "BF16", (rows, groups)),
    )
    return _Job(tensor, module_kind(name), packing, outputs)


def _write_shards(work: PartialFolder, jobs: list[_Job], shards: list[Shard], progress: Progress) -> dict[str, Tally]:
    """Converts every tensor that is not yet; what packing changed, for each kind of packed module."""
    finished = work.journal.finished
    total_bytes = sum(job.tensor.nbytes for job in jobs)
    done_bytes = sum(job.tensor.nbytes for job in jobs if job.tensor.name in finished)
    for shard in shards:
        left = [job for job in jobs if job.outputs[0].name in shard.places and job.tensor.name not in finished]
        with ShardWriter(work.folder, shard) as file, WriteBehind(file, work.journal) as writer:
            for part in in_order(_pack, _slices(left), packing_threads()):
                for output, numbers in zip(part.outputs, part.numbers, strict=True):
                    writer.write(output.name, numbers)
                writer.count(part.job.tensor.name, part.tally)
                if part.is_last:
                    writer.finish(part.job.tensor.name, [output.name for output in part.job.outputs])
                done_bytes += part.source_bytes
                progress(done_bytes, total_bytes)
    changes: dict[str, Tally] = defaultdict(Tally)
    for job in jobs:
        if job.packing is not None:
            changes[job.kind] += finished[job.tensor.name]
    return dict(sorted(changes.items()))


def packing_threads() -> int:
    """How many threads pack: MLX computes on one core for each that asks it, and on a GPU for all that ask."""
    return min(MOST_THREADS, os.cpu_count() or 1) if mx.default_device() == mx.cpu else 0


@dataclass(frozen=True)
class _Slice:
    """Some rows of a tensor, and whether they are its last."""

    job: _Job
    outputs: tuple[OutputTensor, ...]
    """Those that the rows become: all of the job's, or, where they are copied, one of them."""
    rows: mx.array
    source_bytes: int
    is_last: bool


@dataclass(frozen=True)
class _PackedSlice:
    """The same packed, as NumPy has it, for each of its outputs."""

    job: _Job
    outputs: tuple[OutputTensor, ...]
    numbers: tuple[npt.NDArray[Any], ...]
    tally: Tally
    source_bytes: int
    is_last: bool


def _slices(jobs: list[_Job]) -> Iterator[_Slice]:
    for job in jobs:
        if job.copied:
            yield from _copied_slices(job)
            continue
        rows_done = bytes_done = 0
        for rows in job.tensor.slices():
            mx.eval(rows)  # before another thread takes it
            rows_done += len(rows)
            read_bytes = job.tensor.nbytes * rows_done // job.tensor.shape[0] - bytes_done
            bytes_done += read_bytes
            yield _Slice(job, job.outputs, rows, read_bytes, rows_done == job.tensor.shape[0])


def _copied_slices(job: _Job) -> Iterator[_Slice]:
    for output, part in zip(job.outputs, job.copied, strict=True):
        rows_done = 0
        for rows in part.slices():
            mx.eval(rows)
            rows_done += len(rows)
            is_last = output is job.outputs[-1] and rows_done == part.shape[0]
            yield _Slice(job, (output,), rows, rows.nbytes, is_last)


def _pack(part: _Slice) -> _PackedSlice:
    job, rows = part.job, part.rows
    if job.packing is None or job.copied:
        numbers: tuple[npt.NDArray[Any], ...] = (as_numbers(_as_stored(rows) if job.packing is None else rows),)
        tally = Tally()
    else:
        packed = pack_rows(rows, job.packing)
        numbers, tally = tuple(map(as_numbers, (packed.codes, packed.scales, packed.biases))), packed.tally
    return _PackedSlice(job, part.outputs, numbers, tally, part.source_bytes, part.is_last)


def _as_stored(rows: mx.array) -> mx.array:
    """Rows of a tensor that stays whole, in the type that it is stored in."""
    return rows if rows.dtype == mx.int64 else rows.astype(mx.bfloat16)
