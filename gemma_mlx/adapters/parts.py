"""What a format of adapter files says, before it is held against a model; and what all formats have to say."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import mlx.core as mx

from gemma_mlx.adapters.adapter import LowRank
from gemma_mlx.errors import CheckpointError
from gemma_mlx.names import canonical_name

Config = Mapping[str, Any]
Tensors = Mapping[str, mx.array]
"""By the name in the file; lazy."""
TEXT_ONLY = ("layers", "embed_tokens", "norm", "lm_head")
"""What names begin with where the model was trained without its eyes and ears."""


@dataclass(frozen=True)
class Parts:
    """What a file holds, by canonical names."""

    kind: str
    """ "LoRA", "DoRA" or "full"."""
    updates: dict[str, LowRank]
    whole: dict[str, str]
    """Tensor -> its name in the file."""
    base: str | None
    """The model that the adapter says it was trained on."""


def path_in_model(name: str) -> str:
    """The canonical path of a module or tensor that an adapter calls `name`."""
    path = canonical_name(name)
    return f"language_model.{path}" if path.split(".")[0] in TEXT_ONLY else path


def low_rank(module: str, parts: Mapping[str, mx.array], scale: float, rank: int, *, dora: bool) -> LowRank:
    """The update of `module` from its parts "up", "down" and, for DoRA alone, "magnitude".

    Raises CheckpointError where one is missing or too many, and where they are not of `rank`.
    """
    wanted = {"up", "down"} | ({"magnitude"} if dora else set())
    if parts.keys() != wanted:
        kind = "DoRA" if dora else "LoRA"
        what = f"lacks the {missing[0]}" if (missing := sorted(wanted - parts.keys())) else "has a DoRA magnitude"
        raise CheckpointError(f"its config says {kind}, but {module} {what}; copy the adapter again")
    up, down, magnitude = parts["up"], parts["down"], parts.get("magnitude")
    if up.ndim != 2 or down.ndim != 2 or up.shape[1] != down.shape[0]:
        raise CheckpointError(
            f"the two matrices of {module} have shapes {list(up.shape)} and {list(down.shape)}, which do not go "
            "together; copy the adapter again"
        )
    if magnitude is not None and magnitude.shape != (up.shape[0],):
        raise CheckpointError(
            f"the magnitude of {module} has shape {list(magnitude.shape)} for {up.shape[0]} rows; copy the adapter "
            "again"
        )
    if down.shape[0] != rank:
        raise CheckpointError(
            f"its config says rank {rank} for {module}, but the file holds rank {down.shape[0]}; they are not of one "
            "adapter: copy it again"
        )
    return LowRank(up, down, scale, magnitude)


def count(config: Config, key: str) -> int:
    """A whole number from 1 on, or CheckpointError."""
    value = config.get(key)
    if type(value) is not int or value < 1:
        raise CheckpointError(f"its config says {key} is {value!r}, not a whole number from 1 on; copy it again")
    return value


def number(config: Config, key: str) -> float:
    """A finite number, or CheckpointError."""
    value = config.get(key)
    if not isinstance(value, (int, float)) or isinstance(value, bool) or not math.isfinite(value):
        raise CheckpointError(f"its config says {key} is {value!r}, not a number; copy it again")
    return float(value)


def mapping(config: Config, key: str) -> Config:
    """An object, empty where there is none, or CheckpointError."""
    value = config.get(key)
    if not isinstance(value, Mapping) and value is not None:
        raise CheckpointError(f"its config says {key} is {value!r}, not an object; copy it again")
    return value or {}


def names(config: Config, key: str) -> list[str]:
    """A list of names, empty where there is none, or CheckpointError."""
    value = config.get(key)
    if value is None:
        return []
    if not isinstance(value, list) or not all(isinstance(name, str) for name in value):
        raise CheckpointError(f"its config says {key} is {value!r}, not a list of names; copy it again")
    return value


def text(config: Config, key: str) -> str | None:
    """What the config says for a person to read."""
    value = config.get(key)
    return value if isinstance(value, str) and value else None
