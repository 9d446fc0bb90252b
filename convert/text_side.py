"""Everything in a converted folder but its weights: config, index, tokenizer."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from convert.recipes import Packing, Recipe
from convert.shards import Shard
from convert.source import Source
from gemma_mlx.checkpoint import INDEX_FILE
from gemma_mlx.config import read_json
from gemma_mlx.inputs.prompt import PromptBuilder
from gemma_mlx.names import mlx_name

COPIED_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "chat_template.jinja",
    "processor_config.json",
    "generation_config.json",
    "special_tokens_map.json",
    "LICENSE",
    "LICENSE.txt",
    "LICENSE.md",
    "NOTICE",
    "NOTICE.txt",
)
"""Copied as they are, where the source has them."""


def text_side(source: Source, recipe: Recipe, shards: Sequence[Shard]) -> dict[str, bytes]:
    """The files by name. Raises CheckpointError where tokenizer or chat template are missing or damaged.

    A drafter needs neither of the two.
    """
    if not source.is_drafter:
        PromptBuilder.from_folder(source.folder)  # raises
    files = {name: (source.folder / name).read_bytes() for name in COPIED_FILES if (source.folder / name).is_file()}
    config = read_json(source.folder / "config.json")
    for key in ("quantization", "quantization_config"):  # mlx-lm reads the first, others the second
        config.pop(key, None)
        if recipe.packing is not None:
            config[key] = _config_entry(recipe.packing) | {
                mlx_name(path): _config_entry(packing) for path, packing in recipe.overrides.items()
            }
    metadata: dict[str, Any] = {"total_size": sum(shard.tensor_bytes for shard in shards)}
    if source.revision is not None:
        metadata |= {"source": source.repository, "source_revision": source.revision}
    if source.adapter is not None:
        metadata |= {"adapter": source.adapter.name, "adapter_sha256": source.adapter.digest}
    weight_map = dict(sorted((name, shard.file_name) for shard in shards for name in shard.places))
    files["config.json"] = _json(config)
    files[INDEX_FILE] = _json({"metadata": metadata, "weight_map": weight_map})
    return files


def _config_entry(packing: Packing) -> dict[str, Any]:
    return {"group_size": packing.group_size, "bits": packing.bits, "mode": "affine"}


def _json(data: dict[str, Any]) -> bytes:
    return (json.dumps(data, indent=2, ensure_ascii=False) + "\n").encode()
