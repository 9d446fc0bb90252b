"""The adapters that PEFT writes: adapter_model.safetensors and adapter_config.json.

`lora_A` [rank, columns] and `lora_B` [rows, rank] of each module, named as in transformers behind "base_model.model.".
The product is scaled by alpha / rank, or by alpha / sqrt(rank) with rsLoRA; patterns set either for some modules.
"""

from __future__ import annotations

import math
import re
from collections import defaultdict

import mlx.core as mx

from gemma_mlx.adapters.parts import (
    Config,
    Parts,
    Tensors,
    count,
    low_rank,
    mapping,
    names,
    number,
    path_in_model,
    text,
)
from gemma_mlx.errors import CheckpointError

FILE, PICKLED_FILE = "adapter_model.safetensors", "adapter_model.bin"
PREFIX = "base_model.model."
PART_OF = {".lora_A.weight": "down", ".lora_B.weight": "up", ".lora_magnitude_vector": "magnitude"}
READ = {
    *("peft_type", "r", "lora_alpha", "rank_pattern", "alpha_pattern", "use_rslora", "use_dora", "modules_to_save"),
    *("target_modules", "bias", "init_lora_weights", "base_model_name_or_path"),
}
WITHOUT_EFFECT = {
    *("auto_mapping", "ensure_weight_tying", "eva_config", "exclude_modules", "inference_mode", "layers_pattern"),
    *("layers_to_transform", "lora_dropout", "megatron_core", "peft_version", "qalora_group_size", "revision"),
    *("runtime_config", "task_type"),
}
"""On answers: they steered the training, choose modules (the file shows which), or tell where things came from. Tying
is of the token table, which is refused whole."""
PLAIN_INITIALIZATIONS = (None, True, False, "gaussian", "orthogonal", "eva")
"""The others (PiSSA, OLoRA, LoftQ, ...) change the model's own weights, too, before the training begins."""
TIED = ("language_model.embed_tokens", "language_model.lm_head")


def is_peft(config: Config) -> bool:
    """Whether an adapter_config.json with these keys is PEFT's."""
    return "peft_type" in config


def read_parts(config: Config, tensors: Tensors) -> Parts:
    """What the adapter holds. Raises CheckpointError for another kind, for an option that changes answers in a way not
    known here, and for a tensor that such an adapter does not have."""
    _check_kind(config)
    dora, bias = bool(config.get("use_dora")), config.get("bias", "none")
    by_module: dict[str, dict[str, mx.array]] = defaultdict(dict)
    whole_tensors: dict[str, str] = {}
    for name, array in tensors.items():
        own = name.removeprefix(PREFIX)
        ending = next((ending for ending in PART_OF if own.endswith(ending)), None)
        if ending is not None:
            by_module[own.removesuffix(ending)][PART_OF[ending]] = array
        elif (bias != "none" and own.endswith(".bias")) or _is_saved_whole(own, config):
            whole_tensors[path_in_model(own)] = name
        else:
            _refuse_tied([path_in_model(own.rpartition(".")[0])])
            raise CheckpointError(f"it holds {name}, which is no part of the adapter in its config; copy it again")
    updates = {}
    for module, parts in by_module.items():
        _check_targeted(module, config)
        path, rank = path_in_model(module), count(*_where(config, "rank_pattern", module, "r"))
        alpha = number(*_where(config, "alpha_pattern", module, "lora_alpha"))
        scale = alpha / (math.sqrt(rank) if config.get("use_rslora") else rank)
        updates[path] = low_rank(path, parts, scale, rank, dora=dora)
    if len(updates) < len(by_module):
        raise CheckpointError("it holds a module twice, in two spellings; copy it again")
    _refuse_tied([*updates, *(name.rpartition(".")[0] for name in whole_tensors)])
    return Parts("DoRA" if dora else "LoRA", updates, whole_tensors, text(config, "base_model_name_or_path"))


def _check_kind(config: Config) -> None:
    if config["peft_type"] != "LORA":
        raise CheckpointError(f"its kind is {config['peft_type']!r}; gemma-mlx reads LORA, with use_dora or without")
    if unknown := sorted(key for key in config if config[key] and key not in READ | WITHOUT_EFFECT):
        raise CheckpointError(f"its config asks for {unknown[0]} = {config[unknown[0]]!r}, which is not known here")
    if config.get("init_lora_weights") not in PLAIN_INITIALIZATIONS:
        raise CheckpointError(
            f"its init_lora_weights is {config['init_lora_weights']!r}, which changed the model's own weights, too; "
            "save it with path_initial_model_for_weight_conversion"
        )


def _is_saved_whole(name: str, config: Config) -> bool:
    """Whether the tensor `name` is of one of the modules that were trained whole."""
    return any(f".{module}." in f".{name}" for module in names(config, "modules_to_save"))


def _check_targeted(module: str, config: Config) -> None:
    """Raises CheckpointError for a module that PEFT would not give an adapter: it would pass over its tensors."""
    targets = config.get("target_modules")
    if isinstance(targets, str):
        found = targets == "all-linear" or _matches(targets, module)
    else:
        found = any(f".{module}".endswith(f".{target}") for target in names(config, "target_modules"))
    if not found:
        raise CheckpointError(f"it holds {module}, which its target_modules do not name; copy it again")


def _where(config: Config, patterns_key: str, module: str, key: str) -> tuple[Config, str]:
    """Where a setting of `module` stands: with the first pattern that matches it, as PEFT matches them, else `key`."""
    patterns = mapping(config, patterns_key)
    found = next((pattern for pattern in patterns if _matches(rf"(.*\.)?({pattern})", module)), None)
    return (config, key) if found is None else (patterns, found)


def _matches(pattern: str, module: str) -> bool:
    try:
        return re.fullmatch(pattern, module) is not None
    except re.error as error:
        raise CheckpointError(f"its config has the pattern {pattern!r}, which is none ({error})") from None


def _refuse_tied(paths: list[str]) -> None:
    """PEFT changes the token table where it is read and leaves it where it is the head, or the other way round."""
    if found := [path for path in paths if path in TIED]:
        kind = found[0].split(".")[1]
        raise CheckpointError(
            f"it changes {kind}, but token table and head are one matrix in Gemma 4, and it changes one of the two; "
            "train it without"
        )
