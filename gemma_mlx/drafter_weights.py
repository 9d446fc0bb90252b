"""A drafter folder becomes a `Drafter` that is paired with its target. As strict as `weights.py`."""

from __future__ import annotations

import warnings
from pathlib import Path

import mlx.core as mx
from mlx.utils import tree_unflatten

from gemma_mlx.checkpoint import read_headers, require_tensors
from gemma_mlx.config import Config
from gemma_mlx.drafter_config import read_drafter_config, require_target
from gemma_mlx.errors import CheckpointError, GemmaWarning
from gemma_mlx.model.drafter import Drafter
from gemma_mlx.model.gemma4 import Gemma4
from gemma_mlx.weights import check_finite, keeps_its_type, pack_like, read_tensors

TEMPLATE_FILE = "chat_template.jinja"


def load_drafter(folder: Path, target_folder: Path, target_config: Config, target: Gemma4) -> Drafter:
    """The drafter in `folder`, in memory, paired with `target` and computing in its type.

    Raises CheckpointError in one line for anything that does not fit, and for a drafter of another model. Warns
    (GemmaWarning) of a key of config.json that is unknown here.
    """
    config = read_drafter_config(folder)
    if config.unknown_keys:
        keys = ", ".join(config.unknown_keys)
        warnings.warn(f"config.json of {folder} says things unknown here: {keys}", GemmaWarning, stacklevel=2)
    require_target(config, target_config)
    _require_same_template(folder, target_folder)
    infos = read_headers(folder)
    drafter = Drafter(config)
    pack_like(drafter, config.quantization, infos)
    require_tensors(folder, infos, drafter.shapes(), "a drafter of Gemma 4 12B")
    sources = {file: read_tensors(file) for file in {info.file for info in infos.values()}}
    weights = {}
    for name, info in infos.items():
        array = sources[info.file].pop(info.name)
        weights[name] = array if keeps_its_type(info) else array.astype(target.dtype)
    check_finite(folder, weights)
    if config.use_ordered_embeddings:
        _check_ordering(folder, weights["masked_embedding.token_ordering"])
    drafter.update(tree_unflatten(list(weights.items())))
    mx.eval(list(weights.values()))
    drafter.pair(target)
    return drafter


def _require_same_template(folder: Path, target_folder: Path) -> None:
    """A drafter learns from chats: where it has a chat template beside it, that must be its target's."""
    ours, wanted = folder / TEMPLATE_FILE, target_folder / TEMPLATE_FILE
    if ours.is_file() and wanted.is_file() and ours.read_bytes() != wanted.read_bytes():
        raise CheckpointError(
            f"{ours} is not the chat template of {target_folder}: the drafter was made for another release of the "
            "model; use the drafter of this one, or --draft off"
        )


def _check_ordering(folder: Path, ordering: mx.array) -> None:
    """The device writes past the end of a table without a word, so what indexes into one is checked here."""
    if not mx.array_equal(mx.sort(ordering), mx.arange(ordering.shape[0])).item():
        raise CheckpointError(
            f"masked_embedding.token_ordering in {folder} does not name every token once; download the drafter again"
        )
