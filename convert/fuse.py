"""An adapter made part of the weights: W' in place of W, computed in float32 a few rows at a time, before packing.

A slice is whole rows, which is all that DoRA's length of a row needs. Memory stays that of a slice and of one update.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import mlx.core as mx

from convert.source import Source
from convert.source_tensor import SourceTensor, StoredTensor
from gemma_mlx.adapters.adapter import LowRank
from gemma_mlx.adapters.folder import read_adapter
from gemma_mlx.errors import CheckpointError, UsageError


def fuse(source: Source, folder: Path) -> Source:
    """`source` with the adapter in `folder` in its tensors.

    Raises UsageError for a drafter, which no adapter is for, and CheckpointError for an adapter of another model.
    """
    if source.is_drafter:
        raise UsageError(f"{source.folder} is a drafter, and an adapter is for the model; leave out --fuse")
    adapter = read_adapter(folder, {name: tensor.shape for name, tensor in source.tensors.items()})
    tensors = dict(source.tensors)
    for name, info in adapter.whole.items():
        tensors[name] = StoredTensor(info)
    for path, update in adapter.updates.items():
        tensors[f"{path}.weight"] = FusedTensor(tensors[f"{path}.weight"], update, adapter.name)
    identity = {**source.identity, "adapter": f"{adapter.name}, sha256 {adapter.digest}"}
    return replace(source, tensors=tensors, adapter=adapter, identity=identity)


@dataclass(frozen=True)
class FusedTensor:
    """The matrix `base` with its update."""

    base: SourceTensor
    update: LowRank
    adapter: str

    @property
    def name(self) -> str:
        return self.base.name

    @property
    def shape(self) -> tuple[int, ...]:
        return self.base.shape

    @property
    def dtype(self) -> str:
        return "F32"

    @property
    def nbytes(self) -> int:
        return self.base.nbytes

    def slices(self) -> Iterator[mx.array]:
        first = 0
        for rows in self.base.slices():
            fused = self.update.added_to(rows, first)
            if self.update.magnitude is not None:
                fused = fused * self.update.row_factors(fused, first)[:, None]
            if not mx.isfinite(fused).all().item():
                raise CheckpointError(f"{self.name} is not finite with the adapter {self.adapter}; name another one")
            yield fused
            first += rows.shape[0]
