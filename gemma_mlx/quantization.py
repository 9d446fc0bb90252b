"""How the matrices of an MLX folder are packed, as its config.json says it.

MLX programs write a default and, by module path, what differs from it: {"bits": 4, "group_size": 64, "mode": "affine",
"language_model.model.embed_tokens": {"bits": 6, "group_size": 64}, "embed_audio.embedding_projection": false}. Paths
come in every spelling that names.py knows. Other programs use the key `quantization_config` for packings of their own,
which MLX does not have: they are refused by name.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from gemma_mlx.errors import CheckpointError
from gemma_mlx.names import canonical_name
from gemma_mlx.other_formats import FOREIGN_METHODS, UNPACKED_SOURCE, method_refusal

_AFFINE_BITS = (2, 3, 4, 5, 6, 8)
_AFFINE_GROUPS = (32, 64, 128)
_FLOAT_MODES = {"mxfp4": (4, 32), "nvfp4": (4, 16), "mxfp8": (8, 32)}
"""Modes that have one form each: (bits, group size)."""


@dataclass(frozen=True)
class StoredPacking:
    """How one matrix is packed: `bits` per number in groups of `group_size`, in one of MLX's modes.

    "affine" groups share a scale and a bias, those of the float modes ("mxfp4", "nvfp4", "mxfp8") an 8-bit scale.
    """

    bits: int
    group_size: int
    mode: str = "affine"


@dataclass(frozen=True)
class Quantization:
    """How the linears of an MLX folder are packed: a default, and modules that differ (None: not packed)."""

    default: StoredPacking
    overrides: dict[str, StoredPacking | None]
    """By canonical module path."""

    def of(self, path: str) -> StoredPacking | None:
        """The packing of the module at `path`, None where it is stored whole."""
        return self.overrides.get(path, self.default)


def read_quantization(config: dict[str, Any]) -> Quantization | None:
    """What a decoded config.json says of packing; None where nothing is packed.

    Raises CheckpointError for a packing that MLX does not have.
    """
    data = config.get("quantization") or config.get("quantization_config")
    if not data:
        return None
    method = data.get("quant_method")
    if method and ("bits" in data or method in FOREIGN_METHODS):
        drafter = "-assistant" if str(config.get("model_type")).endswith("_assistant") else ""
        raise CheckpointError(method_refusal("the folder", method, UNPACKED_SOURCE + drafter))
    if "bits" not in data:  # Google's QAT release may say how it was trained; nothing of it is packed
        return None
    overrides: dict[str, StoredPacking | None] = {}
    for path, value in data.items():
        if isinstance(value, dict):
            overrides[canonical_name(path)] = _packing(value)
        elif value is False:
            overrides[canonical_name(path)] = None
    return Quantization(_packing(data), overrides)


def _packing(data: dict[str, Any]) -> StoredPacking:
    """One entry, completed with MLX's defaults. MLX divides by these numbers without asking: they are checked here."""
    mode = data.get("mode", "affine")
    if mode == "affine":
        bits, group_size = data.get("bits", 4), data.get("group_size", 64)
        fits = isinstance(bits, int) and isinstance(group_size, int)
        if not fits or bits not in _AFFINE_BITS or group_size not in _AFFINE_GROUPS:
            raise CheckpointError(
                f"config.json packs with {bits!r} bits in groups of {group_size!r}; MLX has {_AFFINE_BITS} bits and "
                f"groups of {_AFFINE_GROUPS}: convert the model again"
            )
        return StoredPacking(bits, group_size)
    if mode not in _FLOAT_MODES:
        raise CheckpointError(
            f"the folder is packed in mode {mode!r}; gemma-mlx reads affine, {', '.join(_FLOAT_MODES)}: convert it "
            "from Google's release"
        )
    bits, group_size = _FLOAT_MODES[mode]
    if (data.get("bits", bits), data.get("group_size", group_size)) != (bits, group_size):
        raise CheckpointError(
            f"config.json packs in mode {mode} with {data.get('bits')!r} bits in groups of "
            f"{data.get('group_size')!r}; MLX has {bits} bits in groups of {group_size}: convert the model again"
        )
    return StoredPacking(bits, group_size, mode)
