"""Which sources can be run while they are converted, layer by layer (`layerwise.py`)."""

from __future__ import annotations

from convert.lattice_check import begins_on_lattice
from convert.layerwise import TABLE
from convert.packed_source import PackedTensor
from convert.source import Source
from gemma_mlx.errors import UsageError


def refuse_unrunnable(source: Source, asked: str) -> None:
    """UsageError for a source on which nothing can be measured, or need not be; `asked` is the flag that wants to."""
    if source.is_drafter:
        raise UsageError("a drafter's errors cost time and never a word: convert it with --recipe 4bit and no more")
    if source.is_remote:
        raise UsageError(f"{asked} runs the source, which must be on this disk: leave out --low-disk")
    if source.adapter is not None:
        raise UsageError(
            f"{asked} runs the source as it lies on the disk: fuse the adapter with --recipe bf16 first, and convert "
            "that folder"
        )
    if any(isinstance(tensor, PackedTensor) for tensor in source.tensors.values()):
        raise UsageError(f"{source.folder} is packed already, and {asked} measures against whole numbers")
    if any(begins_on_lattice(tensor) for name, tensor in source.tensors.items() if name == f"{TABLE}.weight"):
        raise UsageError(
            f"the source was trained for 4 bits: --recipe qat keeps its numbers, {asked} would round them again"
        )
