"""One tensor of the source and what becomes of it: packed, copied as it is packed already, or stored whole."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import mlx.core as mx
import numpy as np
import numpy.typing as npt

from convert.lattice import pack_lattice_rows
from convert.packed_source import PackedTensor
from convert.packing import pack_rows
from convert.recipes import Packing, Recipe, module_kind
from convert.shards import OutputTensor, as_numbers
from convert.source_tensor import SourceTensor, all_finite
from convert.tally import Tally
from gemma_mlx.errors import CheckpointError
from gemma_mlx.names import mlx_name


@dataclass(frozen=True)
class Job:
    """What is to be done with `tensor`."""

    tensor: SourceTensor
    kind: str
    """Of the module that it belongs to, "" where it stays whole."""
    packing: Packing | None
    """None where it stays whole."""
    outputs: tuple[OutputTensor, ...]
    """Weight, or weight, scales and biases."""
    copied: tuple[SourceTensor, ...] = ()
    """What the outputs are copies of, where the source holds them packed as they are wanted."""


def job_of(name: str, tensor: SourceTensor, recipe: Recipe, is_drafter: bool) -> Job:
    """What `recipe` does with the tensor of this canonical name. Raises CheckpointError where it cannot do that."""
    path = tensor.name if is_drafter else mlx_name(name)  # drafters have one spelling everywhere
    module = path.removesuffix(".weight")
    packing = recipe.packing_of(name)
    if packing is None:
        dtype = "I64" if tensor.dtype == "I64" else "BF16"
        return Job(tensor, "", None, (OutputTensor(path, dtype, tensor.shape),))
    if isinstance(tensor, PackedTensor):
        if packing.on_lattice:
            raise CheckpointError(
                f"{tensor.name} is packed already: --recipe {recipe.name} takes the unpacked release, as "
                "google/gemma-4-12B-it-qat-q4_0-unquantized; use --recipe 4bit-g32 to pack this one again"
            )
        if tensor.is_stored_as(packing):
            names = (path, f"{module}.scales", f"{module}.biases")
            copies = (
                OutputTensor(name, part.dtype, part.shape) for name, part in zip(names, tensor.parts, strict=True)
            )
            return Job(tensor, module_kind(name), packing, tuple(copies), tensor.parts)
    rows, columns = tensor.shape
    if columns % packing.group_size:
        raise CheckpointError(
            f"{tensor.name} has {columns} columns, not a multiple of the group size {packing.group_size}: it cannot be "
            "packed; use the recipe bf16"
        )
    groups = columns // packing.group_size
    outputs = (
        OutputTensor(path, "U32", (rows, columns * packing.bits // 32)),
        OutputTensor(f"{module}.scales", packing.scale_dtype, (rows, groups)),
        OutputTensor(f"{module}.biases", packing.scale_dtype, (rows, groups)),
    )
    return Job(tensor, module_kind(name), packing, outputs)


@dataclass(frozen=True)
class Slice:
    """Some rows of a tensor as they were read."""

    job: Job
    outputs: tuple[OutputTensor, ...]
    """Those that the rows become: all of the job's, or, where they are copied, one of them."""
    rows: mx.array
    source_bytes: int
    is_last: bool
    """Whether the job ends with them."""


@dataclass(frozen=True)
class PackedSlice:
    """The same as they are written, for each of `outputs`."""

    job: Job
    outputs: tuple[OutputTensor, ...]
    numbers: tuple[npt.NDArray[Any], ...]
    tally: Tally
    source_bytes: int
    is_last: bool


def slices_of(jobs: Iterable[Job]) -> Iterator[Slice]:
    """All rows of all jobs, in order, ready to be packed by another thread."""
    for job in jobs:
        for part in _copied_slices(job) if job.copied else _read_slices(job):
            mx.eval(part.rows)
            yield part


def _read_slices(job: Job) -> Iterator[Slice]:
    tensor, rows_done, bytes_done = job.tensor, 0, 0
    for rows in tensor.slices():
        rows_done += len(rows)
        read_bytes = tensor.nbytes * rows_done // tensor.shape[0] - bytes_done
        bytes_done += read_bytes
        yield Slice(job, job.outputs, rows, read_bytes, rows_done == tensor.shape[0])


def _copied_slices(job: Job) -> Iterator[Slice]:
    for output, part in zip(job.outputs, job.copied, strict=True):
        rows_done = 0
        for rows in part.slices():
            rows_done += len(rows)
            is_last = output is job.outputs[-1] and rows_done == part.shape[0]
            yield Slice(job, (output,), rows, rows.nbytes, is_last)


@np.errstate(over="ignore", invalid="ignore")
def packed(part: Slice) -> PackedSlice:
    """What a slice becomes. Raises CheckpointError where that holds NaN or infinity."""
    arrays, tally = _outcome(part.job, part.rows)
    as_read = len(arrays) == 1 and arrays[0].dtype == part.rows.dtype  # and checked then
    numbers = tuple(map(as_numbers, arrays)) if as_read else finite_numbers(part.job, arrays)
    return PackedSlice(part.job, part.outputs, numbers, tally, part.source_bytes, part.is_last)


def finite_numbers(job: Job, arrays: Iterable[mx.array]) -> tuple[npt.NDArray[Any], ...]:
    """What `job` comes to, as `ShardWriter` takes it. Raises CheckpointError where that holds NaN or infinity."""
    found = tuple(map(as_numbers, arrays))
    if not all(map(all_finite, found)):
        raise CheckpointError(
            f"{job.tensor.name} comes to NaN or infinity: the source holds numbers that bfloat16 cannot, or scales "
            "that are none; download it again"
        )
    return found


def _outcome(job: Job, rows: mx.array) -> tuple[tuple[mx.array, ...], Tally]:
    if job.copied:
        return (rows,), Tally()
    if job.packing is None:
        return (rows if rows.dtype == mx.int64 else rows.astype(mx.bfloat16, stream=mx.cpu),), Tally()
    done = pack_lattice_rows(rows, job.packing) if job.packing.on_lattice else pack_rows(rows, job.packing)
    return (done.codes, done.scales, done.biases), done.tally
