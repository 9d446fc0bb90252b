"""generation_config.json of a checkpoint: how it wants to be sampled, and which tokens end an answer."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gemma_mlx.config import read_json
from gemma_mlx.decoding.sampling import Sampling
from gemma_mlx.errors import CheckpointError, UsageError

_SETTINGS = ("temperature", "top_k", "top_p", "min_p", "repetition_penalty")


@dataclass(frozen=True)
class GenerationConfig:
    sampling: Sampling
    eos_token_ids: tuple[int, ...]


def read_generation_config(folder: Path, vocab_size: int) -> GenerationConfig:
    """What the file says, and Google's defaults for what it does not. CheckpointError for values that make no sense."""
    path = folder / "generation_config.json"
    data = read_json(path) if path.is_file() else {}
    settings: dict[str, Any] = {name: data[name] for name in _SETTINGS if data.get(name) is not None}
    for name, value in settings.items():
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise CheckpointError(f"{path} says {name} = {value!r}; write a number there or take the line out")
    if not data.get("do_sample", True):
        settings["temperature"] = 0.0
    ids = {name: _ids(path, name, data.get(name), vocab_size) for name in ("eos_token_id", "suppress_tokens")}
    try:
        sampling = Sampling(**settings, suppress_tokens=ids["suppress_tokens"])
    except UsageError as error:
        raise CheckpointError(f"{path} cannot be used: {error}") from None
    return GenerationConfig(sampling, ids["eos_token_id"])


def _ids(path: Path, name: str, value: object, vocab_size: int) -> tuple[int, ...]:
    """The ids in a field that may hold one, several or none. The device would not notice one out of range."""
    found = value if isinstance(value, list) else [] if value is None else [value]
    for index in found:
        if type(index) is not int or not 0 <= index < vocab_size:
            raise CheckpointError(f"{path} says {name} = {value!r}; ids go from 0 to {vocab_size - 1}: copy it again")
    return tuple(found)
