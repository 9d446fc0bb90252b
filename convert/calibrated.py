"""The layers of a checkpoint packed with error feedback, in order: each is given what comes out of the packed ones.

    embeddings (packed table) -> layer 0 -> second moments of its inputs -> packed -> written and noted
                                         -> the same states through the packed layer -> layer 1 -> ...

After a kill the states are computed again, through the packed layers as they were written: nothing but these is kept.
A layer is noted when all of it is on the disk. On the 12B each token costs 0.45 GFLOP a layer and pass, of which there
are two, and 0.2 GFLOP for its second moments.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import mlx.core as mx

from convert.calibration import Exchange, samples_of
from convert.feedback import pack_with_feedback
from convert.job import Job, finite_numbers
from convert.layerwise import TABLE, Layer, LayerwiseModel, forward
from convert.packed_source import PackedTensor
from convert.packing import PackedRows
from convert.partial_folder import PartialFolder
from convert.recipes import Recipe
from convert.second_moments import BLOCK_COLUMNS, SHARED, recorded, widest_block
from convert.sensitivity import Sample
from convert.shards import Shard, ShardWriter
from convert.source import Source
from convert.source_tensor import StoredTensor
from gemma_mlx.checkpoint import TensorInfo
from gemma_mlx.config import read_config
from gemma_mlx.errors import UsageError
from gemma_mlx.quantization import StoredPacking

MOST_TOKENS = 65_536
"""Between two layers each is held with 15 kB: 1 GB for as many."""
MOST_SAMPLE_TOKENS = 8192
"""In one prompt with its answer. In a full layer each has 33 kB of queries, and as much of outputs."""


@dataclass(frozen=True)
class Calibration:
    """What the inputs of the layers are measured on."""

    samples: tuple[Sample, ...]
    block_columns: int = BLOCK_COLUMNS
    """Columns at most whose second moments are taken together."""

    @cached_property
    def digest(self) -> str:
        """Changes with anything that the packed numbers depend on."""
        facts = [self.block_columns, *(sample.digest for sample in self.samples)]
        return hashlib.sha256(repr(facts).encode()).hexdigest()[:16]

    @property
    def tokens(self) -> int:
        return sum(len(sample.prompt) + len(sample.answer_ids) for sample in self.samples)

    def __str__(self) -> str:
        return f"{len(self.samples):,} prompt{'s' if len(self.samples) > 1 else ''} with {self.tokens:,} tokens"


Progress = Callable[[int, int], None]


def calibration_of(folder: Path, exchanges: Sequence[Exchange]) -> Calibration:
    """`exchanges` as the model in `folder` takes them. UsageError where they are too few or too many, or one is too
    long.

    Moments of C columns have full rank from C tokens on. With fewer, rounding answers for directions that no token
    showed: on the miniature nothing was gained then (`python -m benchmarks.feedback`).
    """
    samples = samples_of(folder, exchanges)
    for sample, exchange in zip(samples, exchanges, strict=True):
        if (length := len(sample.prompt) + len(sample.answer_ids)) > MOST_SAMPLE_TOKENS:
            raise UsageError(f"{exchange.where} has {length:,} tokens, and at most {MOST_SAMPLE_TOKENS:,} are taken")
    found = Calibration(tuple(samples))
    least_tokens = widest_block(read_config(folder).text)
    if found.tokens < least_tokens:
        raise UsageError(f"too few to round on, {found}: give it {least_tokens:,} tokens, better six times as many")
    if found.tokens > MOST_TOKENS:
        raise UsageError(f"too many to round on, {found}: at most {MOST_TOKENS:,} tokens are held; leave some out")
    return found


def refuse_recipe(recipe: Recipe) -> None:
    """UsageError for a recipe that error feedback does nothing for."""
    if recipe.packing is None:
        raise UsageError(f"--calibration has no effect with --recipe {recipe.name}, which rounds nothing; leave it out")
    if recipe.packing.on_lattice:
        raise UsageError(
            f"--calibration has no effect with --recipe {recipe.name}, whose codes are exact already; leave it out"
        )


def write_layers(
    work: PartialFolder,
    source: Source,
    jobs: Mapping[str, Job],
    shards: Sequence[Shard],
    calibration: Calibration,
    progress: Progress,
) -> None:
    """The matrices of all layers are in `work` afterwards, and in its journal. What else there is of `jobs`, which are
    by canonical name, is not touched."""
    finished, total_bytes = work.journal.finished, sum(job.tensor.nbytes for job in jobs.values())
    matrices = {name: job for name, job in jobs.items() if job.packing is not None and ".layers." in name}

    def missing(among: Mapping[str, Job]) -> bool:
        return any(job.tensor.name not in finished for job in among.values())

    def tell(layer_bytes: int) -> None:
        before = sum(job.tensor.nbytes for job in jobs.values() if job.tensor.name in finished)
        progress(min(before + layer_bytes, total_bytes), total_bytes)

    if not missing(matrices):
        return
    model = LayerwiseModel(source.folder, read_config(source.folder))
    states = _embedded(model, jobs, calibration)
    for layer in model.layers():
        own = {name.removeprefix(layer.prefix): job for name, job in matrices.items() if name.startswith(layer.prefix)}
        if missing(own):
            _write(work, shards, _pack(layer, own, states, calibration, tell))
        if not missing(matrices):
            return
        layer.weights |= {name: _read_back(work, shards, job) for name, job in own.items()}
        decoder = layer.decoder()
        for index, sample in enumerate(calibration.samples):
            states[index] = forward(decoder, states[index], sample.images)


def _embedded(model: LayerwiseModel, jobs: Mapping[str, Job], calibration: Calibration) -> list[mx.array]:
    """What the first layer is given for each sample, of the packed token table."""
    packing = jobs[f"{TABLE}.weight"].packing
    assert packing is not None, "a recipe that packs layers packs the table"
    model.table_packed(packing)
    states = [model.embeddings(sample.prompt, sample.answer_ids) for sample in calibration.samples]
    model.release_ends()
    return states


def _pack(
    layer: Layer,
    jobs: Mapping[str, Job],
    states: Sequence[mx.array],
    calibration: Calibration,
    tell: Callable[[int], None],
) -> list[tuple[Job, PackedRows]]:
    """The matrices of `layer`, whose `jobs` are by name in it. `tell` is told of the source's bytes that are done."""
    decoder = layer.decoder()
    with recorded(decoder.layers[0], layer.text, calibration.block_columns) as recorders:
        for state, sample in zip(states, calibration.samples, strict=True):
            forward(decoder, state, sample.images)
    found, done_bytes = [], 0
    for path, recorder in recorders.items():
        moments = recorder.moments()
        for name in (f"{module}.weight" for module in SHARED[path]):
            if name in jobs:
                packing = jobs[name].packing
                assert packing is not None, "all that comes here is packed"
                found.append((jobs[name], pack_with_feedback(layer.weights[name], moments, packing)))
                done_bytes += jobs[name].tensor.nbytes
                tell(done_bytes)
    return found


def _write(work: PartialFolder, shards: Sequence[Shard], layer: Sequence[tuple[Job, PackedRows]]) -> None:
    """Afterwards the matrices of a layer are on the disk, and then in the journal."""
    for shard in shards:
        here = [(job, rows) for job, rows in layer if job.outputs[0].name in shard.places]
        if not here:
            continue
        with ShardWriter(work.folder, shard) as file:
            for job, rows in here:
                numbers = finite_numbers(job, (rows.codes, rows.scales, rows.biases))
                for output, part in zip(job.outputs, numbers, strict=True):
                    file.write(output.name, part)
                file.require_whole(output.name for output in job.outputs)
            file.sync()
    work.journal.add({job.tensor.name: rows.tally for job, rows in layer})


def _read_back(work: PartialFolder, shards: Sequence[Shard], job: Job) -> mx.array:
    """What the packed matrix stands for, in float32."""
    shard = next(shard for shard in shards if job.outputs[0].name in shard.places)
    file, packing = work.folder / shard.file_name, job.packing
    assert packing is not None, "all that comes here is packed"
    parts = (TensorInfo(part.name, file, part.dtype, part.shape, *shard.places[part.name]) for part in job.outputs)
    stored = PackedTensor(tuple(map(StoredTensor, parts)), StoredPacking(packing.bits, packing.group_size))
    return mx.concatenate(list(stored.slices()))
