"""Builds of Gemma 4 12B that other programs run, known by name or by their files, and what to use here instead."""

from __future__ import annotations

import os
from pathlib import Path

from gemma_mlx.errors import CheckpointError, UsageError

UNPACKED_SOURCE = "google/gemma-4-12B-it-qat-q4_0-unquantized"
"""What stands behind every 4-bit build of Google's own, GGUF or not, with its numbers whole."""
_METHODS = {
    "-gptq": "gptq",
    "-awq": "awq",
    "-ct": "compressed-tensors",
    "-w4a16": "compressed-tensors",
    "-bnb-4bit": "bitsandbytes",
    "-bnb-8bit": "bitsandbytes",
}
"""How names on Hugging Face end -> the packing behind them."""
FOREIGN_METHODS = frozenset(_METHODS.values()) | {"fp8", "fbgemm_fp8", "hqq", "quanto", "torchao"}
"""Packings of other programs, as `quant_method` in config.json names them."""


def refuse_other_format(named: str | os.PathLike[str]) -> None:
    """Raises in one line, with what to use instead, if `named` is a build that gemma-mlx cannot read.

    UsageError for a file, and for an id on Hugging Face that says so itself; CheckpointError for a folder that holds
    GGUF and no other weights.
    """
    name, folder = os.fspath(named), Path(named)
    if os.path.isdir(name):  # noqa: PTH112  # False also for a name that is too long
        if any(folder.glob("*.gguf")) and not any(folder.glob("*.safetensors")):
            raise CheckpointError(gguf_refusal(name))
        return
    ending = name.rstrip("/").lower()
    if ending.endswith((".gguf", "-gguf")):
        raise UsageError(gguf_refusal(name))
    for suffix, method in _METHODS.items():
        if ending.endswith(suffix):
            raise UsageError(method_refusal(name, method))


def gguf_refusal(name: str) -> str:
    """What to say of `name`, which is GGUF."""
    return (
        f"{name} is GGUF: llama.cpp and Ollama run it; for the same quality here, download {UNPACKED_SOURCE} and "
        "gemma-mlx convert it with --recipe qat"
    )


def method_refusal(name: str, method: str, unpacked: str = UNPACKED_SOURCE) -> str:
    """What to say of `name`, which is packed by `method`, a packing that MLX does not have."""
    return (
        f"{name} is packed by {method}, which gemma-mlx does not read; download {unpacked} and gemma-mlx convert it "
        "with --recipe qat"
    )
