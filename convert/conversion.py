"""A checkpoint becomes a folder that MLX programs load: read, packed and written a slice at a time.

What another thread reads ahead is packed here and written behind by a third. The folder appears whole or not at all;
a conversion that was stopped goes on where it was (partial_folder.py).
"""

from __future__ import annotations

import hashlib
import json
import math
import time
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
import numpy.typing as npt

import convert
from convert.journal import Identity
from convert.lattice import pack_lattice_rows
from convert.lattice_check import look_at_lattice, require_on_lattice, tensors_off_lattice
from convert.packing import pack_rows
from convert.partial_folder import PartialFolder, partial_folder, refuse_existing
from convert.recipes import Packing, Recipe, module_kind, recipe_named
from convert.shards import OutputTensor, Shard, ShardWriter, plan_shards
from convert.source import Source, SourceTensor, read_source
from convert.tally import Tally
from convert.text_side import text_side
from convert.write_behind import WriteBehind
from gemma_mlx.decoding.saved_session import source_hash
from gemma_mlx.errors import CheckpointError
from gemma_mlx.names import mlx_name

SHARD_BYTES = 5_000_000_000

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
    off_lattice: str
    """The tensors with blocks that were rounded because they were not on the lattice, in words; mostly empty."""
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
    folder: Path,
    destination: Path,
    recipe: str,
    *,
    progress: Progress | None = None,
    shard_bytes: int = SHARD_BYTES,
    restart: bool = False,
    round_off_lattice: bool = False,
) -> ConversionReport:
    """Writes the model or drafter in `folder` to the new folder `destination`, packed by the recipe of that name.

    See `convert_source`. `round_off_lattice` is for recipes that keep a lattice: blocks off it are rounded instead of
    refused. Also raises UsageError for a recipe that there is not, and CheckpointError for a folder that is not an
    unpacked Gemma 4 12B or its drafter. Warns (GemmaWarning) of a key of config.json that is unknown here.
    """
    chosen = recipe_named(recipe, round_off_lattice=round_off_lattice)
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

    Afterwards `destination` holds a model under MLX's names in the precision asked for, with config and tokenizer. A
    run that was stopped, by whatever means, is gone on with by the next one of the same source and recipe; `restart`
    throws away what another one left. After a refusal nothing remains. `progress` is called with the bytes of the
    source that are done and their total. A shard has at most `shard_bytes` of numbers.

    Raises UsageError for a `destination` that exists or is being made of something else, CheckpointError for a source
    that lacks its tokenizer or chat template (a drafter needs none), does not fit the recipe, or is damaged, and for a
    disk that is too small.
    """
    started = time.perf_counter()
    refuse_existing(destination)
    jobs = [_job(name, tensor, recipe, source.is_drafter) for name, tensor in source.tensors.items()]
    shards = plan_shards([job.outputs for job in jobs], shard_bytes)
    text = text_side(source, recipe, shards)
    look_at_lattice(source.tensors, recipe)
    bytes_written = _bytes_of(shards, text)
    with partial_folder(destination, _identity(source, recipe, shards, text), bytes_written, restart=restart) as work:
        for name, content in text.items():
            (work.folder / name).write_bytes(content)
        _write_shards(work, recipe, jobs, shards, progress or (lambda done, total: None))
        tallies = work.journal.finished
    numbers = sum(math.prod(job.tensor.shape) for job in jobs)
    return ConversionReport(
        tensors=len(jobs),
        bytes_written=bytes_written,
        bits_per_weight=8 * sum(shard.tensor_bytes for shard in shards) / numbers,
        changes=_by_kind(jobs, tallies),
        off_lattice=tensors_off_lattice(tallies),
        seconds=time.perf_counter() - started,
        is_drafter=source.is_drafter,
    )


def folder_bytes(source: Source, recipe: Recipe, shard_bytes: int = SHARD_BYTES) -> int:
    """What `source` converted by `recipe` takes on disk."""
    jobs = [_job(name, tensor, recipe, source.is_drafter) for name, tensor in source.tensors.items()]
    shards = plan_shards([job.outputs for job in jobs], shard_bytes)
    return _bytes_of(shards, text_side(source, recipe, shards))


def _bytes_of(shards: list[Shard], text: Mapping[str, bytes]) -> int:
    return sum(shard.nbytes for shard in shards) + sum(map(len, text.values()))


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
        OutputTensor(f"{module}.scales", packing.scale_dtype, (rows, groups)),
        OutputTensor(f"{module}.biases", packing.scale_dtype, (rows, groups)),
    )
    return _Job(tensor, module_kind(name), packing, outputs)


def _write_shards(
    work: PartialFolder, recipe: Recipe, jobs: list[_Job], shards: list[Shard], progress: Progress
) -> None:
    """Converts every tensor that is not yet."""
    total_bytes = sum(job.tensor.nbytes for job in jobs)
    done_bytes = sum(job.tensor.nbytes for job in jobs if job.tensor.name in work.journal.finished)
    for shard in shards:
        with ShardWriter(work.folder, shard) as file, WriteBehind(file, work.journal) as writer:
            for job in jobs:
                if job.outputs[0].name not in shard.places or job.tensor.name in work.journal.finished:
                    continue
                tally = Tally()
                for rows in job.tensor.slices():
                    tally += _write_slice(writer, job, rows)
                    done_bytes += rows.nbytes
                    progress(done_bytes, total_bytes)
                if not recipe.round_off_lattice:
                    require_on_lattice({job.tensor.name: tally})
                writer.finish(job.tensor.name, [output.name for output in job.outputs], tally)


def _by_kind(jobs: list[_Job], tallies: Mapping[str, Tally]) -> dict[str, Tally]:
    """What packing changed, for each kind of packed module."""
    changes: dict[str, Tally] = defaultdict(Tally)
    for job in jobs:
        if job.packing is not None:
            changes[job.kind] += tallies[job.tensor.name]
    return dict(sorted(changes.items()))


def _write_slice(writer: WriteBehind, job: _Job, rows: mx.array) -> Tally:
    if job.packing is None:
        writer.write(job.outputs[0].name, _numbers(rows if rows.dtype == mx.int64 else rows.astype(mx.bfloat16)))
        return Tally()
    packed = pack_lattice_rows(rows, job.packing) if job.packing.on_lattice else pack_rows(rows, job.packing)
    for output, part in zip(job.outputs, (packed.codes, packed.scales, packed.biases), strict=True):
        writer.write(output.name, _numbers(part))
    return packed.tally


def _numbers(rows: mx.array) -> npt.NDArray[Any]:
    """As NumPy has them: bfloat16 as its bits."""
    return np.array(rows.view(mx.uint16) if rows.dtype == mx.bfloat16 else rows)
