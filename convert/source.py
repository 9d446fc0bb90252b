"""The checkpoint to convert: what is in it, checked against its config."""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from convert.journal import Identity
from convert.packed_source import PackedTensor
from convert.recipes import Recipe, stored_by_recipe
from convert.source_tensor import SourceTensor, StoredTensor
from gemma_mlx.adapters.adapter import Adapter
from gemma_mlx.checkpoint import DTYPE_BYTES, header_bytes, read_headers, require_tensors, tensor_files
from gemma_mlx.config import Config, read_config
from gemma_mlx.drafter_config import DrafterConfig, is_drafter, read_drafter_config
from gemma_mlx.errors import GemmaWarning
from gemma_mlx.model.drafter import Drafter
from gemma_mlx.model.gemma4 import Gemma4
from gemma_mlx.quantization import Quantization
from gemma_mlx.weights import pack_like


@dataclass(frozen=True)
class Source:
    """What is converted."""

    folder: Path
    """Its config, tokenizer and so on."""
    is_drafter: bool
    """Whether it is a drafter and not the model itself."""
    tensors: dict[str, SourceTensor]
    """By canonical name, in the order of their bytes on disk."""
    identity: Identity
    """Tells these numbers from any others: an unfinished conversion goes on only where it is the same."""
    repository: str | None = None
    """Where it was downloaded from, as google/gemma-4-12B-it."""
    revision: str | None = None
    """The commit there."""
    adapter: Adapter | None = None
    """What has been fused into the tensors."""
    is_remote: bool = False
    """Whether the tensors come from a server as they are read: looking at one beforehand is another request."""


def read_source(folder: Path, repository: str | None = None, revision: str | None = None) -> Source:
    """Gemma 4 12B or its drafter, in the released format or as an MLX folder, packed or not.

    Raises CheckpointError for another model, and one whose tensors are not exactly those of its config.
    Warns (GemmaWarning) of a key of config.json that is unknown here.
    """
    config = model_config(folder)
    tensors = {name: StoredTensor(info) for name, info in read_headers(folder).items()}
    return source_of(folder, config, tensors, identity_of(tensor_files(folder)), repository, revision)


def model_config(folder: Path) -> Config | DrafterConfig:
    """What config.json says of a model or a drafter. Raises and warns as `read_source`."""
    config = read_drafter_config(folder) if is_drafter(folder) else read_config(folder)
    if config.unknown_keys:
        keys = ", ".join(config.unknown_keys)
        warnings.warn(f"config.json of {folder} says things unknown here: {keys}", GemmaWarning, stacklevel=4)
    return config


def shapes_of(config: Config | DrafterConfig) -> dict[str, tuple[int, ...]]:
    """The tensors that it has where nothing is packed, by canonical name. Lazy: no number of the model is made."""
    return _model(config).shapes()


def _model(config: Config | DrafterConfig) -> Drafter | Gemma4:
    return Drafter(config) if isinstance(config, DrafterConfig) else Gemma4(config)


def converted_bytes(config: Config | DrafterConfig, recipe: Recipe) -> int:
    """What its weights take on disk when they are converted, but for headers."""
    stored = stored_by_recipe(shapes_of(config), recipe)
    return sum(count * DTYPE_BYTES[dtype] for dtype, count in stored.items())


def source_of(
    folder: Path,
    config: Config | DrafterConfig,
    stored: Mapping[str, StoredTensor],
    identity: Identity,
    repository: str | None = None,
    revision: str | None = None,
) -> Source:
    """The source whose text side lies in `folder` and whose tensors are `stored`, wherever that is.

    Raises CheckpointError unless they are exactly those of `config`.
    """
    infos, model = {name: tensor.info for name, tensor in stored.items()}, _model(config)
    pack_like(model, config.quantization, infos)
    kind = "a drafter of Gemma 4 12B" if isinstance(config, DrafterConfig) else "Gemma 4 12B"
    require_tensors(folder, infos, model.shapes(), kind)
    whole = shapes_of(config)
    in_order = sorted(infos.items(), key=lambda item: (item[1].file, item[1].start))
    tensors = {name: _tensor(name, stored, config.quantization) for name, _ in in_order if name in whole}
    return Source(folder, isinstance(config, DrafterConfig), tensors, identity, repository, revision)


def _tensor(name: str, stored: Mapping[str, StoredTensor], quantization: Quantization | None) -> SourceTensor:
    """The tensor with this canonical name, whole or packed."""
    module = name.removesuffix(".weight")
    packing = quantization.of(module) if quantization is not None and f"{module}.scales" in stored else None
    if packing is None:
        return stored[name]
    names = (name, f"{module}.scales", f"{module}.biases")
    return PackedTensor(tuple(stored[part] for part in names if part in stored), packing)


def identity_of(files: Iterable[Path]) -> Identity:
    """What tells these weight files from others, or from themselves when they were written anew."""
    identity = {}
    for file in files:
        status, digest = file.stat(), hashlib.sha256(header_bytes(file)).hexdigest()
        identity[file.name] = f"{status.st_size} bytes of {status.st_mtime_ns} ns, header {digest}"
    return identity
