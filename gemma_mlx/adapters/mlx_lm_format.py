"""The adapters that `mlx_lm.lora` writes: adapters.safetensors, and its training options in adapter_config.json.

It stores matrices as it multiplies with them, rows of activations from the left: `lora_a` [columns, rank] and `lora_b`
[rank, rows] of a linear. For the token table, whose rows are looked up, it is the other way round. A "full" fine-tune
is the trained layers' tensors themselves.
"""

from __future__ import annotations

from collections import defaultdict

import mlx.core as mx

from gemma_mlx.adapters.parts import Config, Parts, Tensors, count, low_rank, mapping, number, path_in_model, text
from gemma_mlx.errors import CheckpointError

FILE = "adapters.safetensors"
KINDS = {"lora": "LoRA", "dora": "DoRA", "full": "full"}
LEAVES = ("lora_a", "lora_b", "m")


def is_mlx_lm(config: Config) -> bool:
    """Whether an adapter_config.json with these keys is mlx-lm's."""
    return "fine_tune_type" in config or "lora_parameters" in config


def read_parts(config: Config, tensors: Tensors) -> Parts:
    """What the adapter holds. Raises CheckpointError for another kind, and for a tensor that its kind does not have."""
    named, base = config.get("fine_tune_type", "lora"), text(config, "model")
    if not isinstance(named, str) or named not in KINDS:
        raise CheckpointError(f"its fine_tune_type is {named!r}; gemma-mlx reads {', '.join(KINDS)}")
    if named == "full":
        whole_tensors = {path_in_model(name): name for name in tensors}
        if len(whole_tensors) < len(tensors):
            raise CheckpointError("it holds a tensor twice, in two spellings; copy it again")
        return Parts("full", {}, whole_tensors, base)
    parameters = mapping(config, "lora_parameters")
    scale, rank = number(parameters, "scale"), count(parameters, "rank")
    by_module: dict[str, dict[str, mx.array]] = defaultdict(dict)
    for name, array in tensors.items():
        module, _, leaf = name.rpartition(".")
        if leaf not in LEAVES:
            raise CheckpointError(f"it holds {name}, which is no part of a {KINDS[named]} adapter; copy it again")
        path = path_in_model(module)
        looked_up = path.endswith("embed_tokens")
        part = {"lora_a": "up" if looked_up else "down", "lora_b": "down" if looked_up else "up"}.get(leaf, "magnitude")
        if part in by_module[path]:
            raise CheckpointError(f"it holds {path} twice, in two spellings; copy it again")
        by_module[path][part] = array if looked_up or leaf == "m" else array.T
    updates = {path: low_rank(path, parts, scale, rank, dora=named == "dora") for path, parts in by_module.items()}
    return Parts(KINDS[named], updates, {}, base)
