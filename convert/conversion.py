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
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path

import mlx.core as mx

import convert
import gemma_mlx
from convert.calibrated import Calibration, refuse_recipe, write_layers
from convert.job import Job, job_of, packed, slices_of
from convert.journal import Identity
from convert.lattice_check import look_at_lattice, require_on_lattice, tensors_off_lattice
from convert.model_card import CARD_FILE, model_card
from convert.overlap import in_order, keep_freed_memory
from convert.packed_source import PackedTensor, Repacking, count_repacking
from convert.partial_folder import PartialFolder, partial_folder, refuse_existing
from convert.recipes import Recipe, recipe_named
from convert.runnable import refuse_unrunnable
from convert.shards import Shard, ShardWriter, plan_shards
from convert.source import Source, read_source
from convert.tally import Tally
from convert.text_side import text_side
from convert.write_behind import WriteBehind
from gemma_mlx.decoding.saved_session import source_hash
from gemma_mlx.errors import CheckpointError

SHARD_BYTES = 5_000_000_000
MOST_THREADS = 4
"""Packing; more would wait for the disk."""

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
    repacking: Repacking | None = None
    """What became of modules that the source held packed; None where it held none."""


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
    refused. Also raises UsageError for a recipe that there is not, and CheckpointError for a folder that is not
    Gemma 4 12B or its drafter. Warns (GemmaWarning) of a key of config.json that is unknown here.
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
    calibration: Calibration | None = None,
) -> ConversionReport:
    """Writes `source` to the new folder `destination`, packed by `recipe`.

    Afterwards `destination` holds a model under MLX's names in the precision asked for, with config, tokenizer and
    model card. A run that was stopped, by whatever means, is gone on with by the next one of the same source and
    recipe; `restart` throws away what another one left. After a refusal nothing remains. `progress` is called with the
    bytes of the source that are done and their total. A shard has at most `shard_bytes` of numbers. With `calibration`
    the layers are rounded with error feedback (feedback.py).

    Raises UsageError for a `destination` that exists or is being made of something else and for a `calibration` that
    has no effect, CheckpointError for a source that lacks its tokenizer or chat template (a drafter needs none), does
    not fit the recipe, or is damaged, and for a disk that is too small.
    """
    started = time.perf_counter()
    refuse_existing(destination)
    if calibration is not None:
        refuse_recipe(recipe)
        refuse_unrunnable(source, "--calibration")
    by_name = {name: job_of(name, tensor, recipe, source.is_drafter) for name, tensor in source.tensors.items()}
    jobs = list(by_name.values())
    shards = plan_shards([job.outputs for job in jobs], shard_bytes)
    text = text_side(source, recipe, shards)
    tensor_bytes = sum(shard.tensor_bytes for shard in shards)
    bits_per_weight = 8 * tensor_bytes / sum(math.prod(job.tensor.shape) for job in jobs)
    repacking = count_repacking([(job.tensor, job.packing) for job in jobs if isinstance(job.tensor, PackedTensor)])
    bytes_written = _bytes_of(shards, text)
    identity = _identity(source, recipe, calibration, shards, text)
    progress = progress or (lambda done, total: None)
    with partial_folder(destination, identity, bytes_written, restart=restart) as work:
        look_at_lattice(source, recipe)
        for name, content in text.items():
            (work.folder / name).write_bytes(content)
        _require_kept(work, shards, jobs)
        if calibration is not None:
            write_layers(work, source, by_name, shards, calibration, progress)
        _write_shards(work, recipe, jobs, shards, progress)
        tallies = work.journal.finished
        changes = _by_kind(jobs, tallies)
        card = model_card(source, recipe, tensor_bytes, bits_per_weight, changes, repacking, calibration).encode()
        (work.folder / CARD_FILE).write_bytes(card)
    return ConversionReport(
        tensors=len(jobs),
        bytes_written=bytes_written + len(card),
        bits_per_weight=bits_per_weight,
        changes=changes,
        off_lattice=tensors_off_lattice(tallies),
        seconds=time.perf_counter() - started,
        is_drafter=source.is_drafter,
        repacking=repacking,
    )


def folder_bytes(source: Source, recipe: Recipe, shard_bytes: int = SHARD_BYTES) -> int:
    """What `source` converted by `recipe` takes on disk."""
    jobs = [job_of(name, tensor, recipe, source.is_drafter) for name, tensor in source.tensors.items()]
    shards = plan_shards([job.outputs for job in jobs], shard_bytes)
    return _bytes_of(shards, text_side(source, recipe, shards))


def _bytes_of(shards: list[Shard], text: Mapping[str, bytes]) -> int:
    return sum(shard.nbytes for shard in shards) + sum(map(len, text.values()))


def _identity(
    source: Source, recipe: Recipe, calibration: Calibration | None, shards: list[Shard], text: Mapping[str, bytes]
) -> Identity:
    """All that the folder's bytes depend on, in words for the case that an unfinished one is of another."""
    layout = hashlib.sha256()
    code = " ".join(source_hash(Path(package.__path__[0])) for package in (convert, gemma_mlx))
    for shard in shards:
        layout.update(shard.header)
    return {
        "version of gemma-mlx": f"{code} with MLX {metadata.version('mlx')} and NumPy {metadata.version('numpy')}",
        "recipe": recipe.name,
        "packing": json.dumps(asdict(recipe), sort_keys=True),
        "calibration": "" if calibration is None else calibration.digest,
        "adapter": "",
        **source.identity,
        "layout": layout.hexdigest(),
        **{name: hashlib.sha256(content).hexdigest() for name, content in text.items()},
    }


def _write_shards(
    work: PartialFolder, recipe: Recipe, jobs: list[Job], shards: list[Shard], progress: Progress
) -> None:
    """Converts every tensor that is not yet."""
    keep_freed_memory()
    finished = work.journal.finished
    total_bytes = sum(job.tensor.nbytes for job in jobs)
    done_bytes = sum(job.tensor.nbytes for job in jobs if job.tensor.name in finished)
    for shard in shards:
        left = [job for job in jobs if job.outputs[0].name in shard.places and job.tensor.name not in finished]
        with ShardWriter(work.folder, shard) as file, WriteBehind(file, work.journal) as writer:
            for part in in_order(packed, slices_of(left), packing_threads(recipe)):
                name = part.job.tensor.name
                for output, numbers in zip(part.outputs, part.numbers, strict=True):
                    writer.write(output.name, numbers)
                writer.count(name, part.tally)
                if part.is_last:
                    if not recipe.round_off_lattice:
                        require_on_lattice({name: writer.counted(name)})
                    writer.finish(name, [output.name for output in part.job.outputs])
                done_bytes += part.source_bytes
                progress(done_bytes, total_bytes)


def _require_kept(work: PartialFolder, shards: list[Shard], jobs: list[Job]) -> None:
    """Raises CheckpointError where a shard lost bytes that the journal counts on."""
    names = {output.name for job in jobs if job.tensor.name in work.journal.finished for output in job.outputs}
    for shard in shards:
        needed_bytes = max((stop for name, (_, stop) in shard.places.items() if name in names), default=0)
        file = work.folder / shard.file_name
        if needed_bytes and (not file.is_file() or file.stat().st_size < needed_bytes):
            raise CheckpointError(
                f"{file.name} of the unfinished conversion has lost numbers that were written; nothing of it was kept: "
                "run the same command again"
            )


def _by_kind(jobs: list[Job], tallies: Mapping[str, Tally]) -> dict[str, Tally]:
    """What packing changed, for each kind of packed module."""
    changes: dict[str, Tally] = defaultdict(Tally)
    for job in jobs:
        if job.packing is not None:
            changes[job.kind] += tallies[job.tensor.name]
    return dict(sorted(changes.items()))


def packing_threads(recipe: Recipe) -> int:
    """How many threads pack: NumPy computes on one core for each that asks it. So does MLX, which finds the lattice,
    but a GPU computes for all that ask: then it is the caller's own."""
    finds_lattice = recipe.packing is not None and recipe.packing.on_lattice
    return 0 if finds_lattice and mx.default_device() != mx.cpu else min(MOST_THREADS, os.cpu_count() or 1)
