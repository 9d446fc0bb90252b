"""A measurement of sensitivity in a file: kept prompt by prompt, gone on with after a kill, used for other budgets.

{"source": {...}, "measured": {"bits": 4, "group_size": 64},
 "error_ratios": {"language_model.layers.0.mlp.up_proj": {"3-64": 4.0, ...}, ...},
 "samples": {"1f0c...": {"positions": 12, "damages": {"language_model.layers.0.mlp.up_proj": 0.0021, ...}}, ...}}
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from convert.layerwise import LayerwiseModel
from convert.recipes import PACKED_MODULES, Packing, module_kind
from convert.sensitivity import MEASURED, Sample, damages, error_ratios
from gemma_mlx.config import Config, read_json
from gemma_mlx.errors import CheckpointError, UsageError
from gemma_mlx.model.gemma4 import Gemma4
from gemma_mlx.replace_file import replacing

CANDIDATES = tuple(Packing(bits, group_size) for bits in (3, 4, 5, 6, 8) for group_size in (64, 32))
"""What there is to choose from for a module."""

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Measurement:
    """What packing costs, by canonical path of each module that recipes pack."""

    damages: Mapping[str, float]
    """KL in nats at `MEASURED`, a mean over positions of answers."""
    error_ratios: Mapping[str, Mapping[Packing, float]]

    def damage(self, module: str, packing: Packing) -> float:
        """What packing this module alone so costs, as KL in nats."""
        return self.damages[module] * self.error_ratios[module][packing]


def measurement(
    folder: Path,
    config: Config,
    identity: Mapping[str, Any],
    samples: Sequence[Sample],
    file: Path,
    progress: Progress = lambda done, total: None,
) -> Measurement:
    """Measures the unpacked checkpoint in `folder` on `samples`; what `file` holds of that is not measured again.

    `identity` tells its numbers from any others. `progress` is told (done, all) layers. Raises UsageError where `file`
    holds a measurement of something else, CheckpointError where it is damaged or cannot be written.
    """
    facts = {"source": dict(identity), "measured": {"bits": MEASURED.bits, "group_size": MEASURED.group_size}}
    kept: dict[str, Any] = {**facts, "error_ratios": {}, "samples": {}}
    if file.exists():
        kept = _read(file, facts, config)
    layers = config.text.num_hidden_layers
    todo = [sample for sample in samples if sample.digest not in kept["samples"]]
    if todo or not kept["error_ratios"]:
        model = LayerwiseModel(folder, config)
        if not kept["error_ratios"]:
            ratios = error_ratios(model, CANDIDATES)
            kept["error_ratios"] = {
                module: {_key(packing): ratio for packing, ratio in found.items()} for module, found in ratios.items()
            }
            _write(file, kept)
        done = layers * (len(samples) - len(todo))

        def one_layer() -> None:
            nonlocal done
            done += 1
            progress(done, layers * len(samples))

        for sample in todo:
            found = damages(model, sample, one_layer)
            kept["samples"][sample.digest] = {"positions": len(sample.answer_ids), "damages": found}
            _write(file, kept)
    return _averaged(kept, samples)


def _averaged(kept: dict[str, Any], samples: Sequence[Sample]) -> Measurement:
    """Over the positions of all `samples`, each of which is among those kept."""
    used = [kept["samples"][sample.digest] for sample in samples]
    positions = sum(one["positions"] for one in used)
    modules = kept["error_ratios"]
    return Measurement(
        damages={module: sum(one["damages"][module] for one in used) / positions for module in modules},
        error_ratios={
            module: {packing: ratios[_key(packing)] for packing in CANDIDATES} for module, ratios in modules.items()
        },
    )


def _key(packing: Packing) -> str:
    return f"{packing.bits}-{packing.group_size}"


def _read(file: Path, facts: Mapping[str, Any], config: Config) -> dict[str, Any]:
    damaged = CheckpointError(f"{file} is damaged; remove it to measure again, or name another file with --sensitivity")
    try:
        found = read_json(file)
    except CheckpointError:
        raise damaged from None
    if {key: found.get(key) for key in facts} != facts or not {"error_ratios", "samples"} <= found.keys():
        raise UsageError(f"{file} is no measurement of this source; name another file with --sensitivity, or remove it")
    if not _is_whole(found, config):
        raise damaged
    return found


def measured_modules(config: Config) -> set[str]:
    """The canonical paths of all modules that recipes pack."""
    names = Gemma4(config).shapes()
    return {name.removesuffix(".weight") for name in names if module_kind(f".{name}") in PACKED_MODULES}


def _is_whole(kept: Mapping[str, Any], config: Config) -> bool:
    """Whether there are numbers for every module that recipes pack, in all that was kept."""
    modules = measured_modules(config)
    packings = {_key(packing) for packing in CANDIDATES}
    try:
        return all(_holds(kept["error_ratios"][module], packings) for module in modules) and all(
            _holds(sample["damages"], modules) and _holds(sample, {"positions"}) and sample["positions"] > 0
            for sample in kept["samples"].values()
        )
    except (AttributeError, KeyError, TypeError):
        return False


def _holds(numbers: Mapping[str, Any], keys: set[str]) -> bool:
    """Whether a finite number from 0 on stands under each of `keys`."""
    return all(math.isfinite(numbers[key]) and numbers[key] >= 0 for key in keys)


def _write(file: Path, kept: dict[str, Any]) -> None:
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with replacing(file) as stream:
            stream.write(json.dumps(kept, indent=1).encode() + b"\n")
    except OSError as error:
        raise CheckpointError(f"cannot write {file}: {error.strerror}; name another file with --sensitivity") from None
