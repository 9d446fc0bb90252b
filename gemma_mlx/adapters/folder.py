"""A folder becomes an `Adapter` that fits a model, or one line says why not. No number of the model is needed."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import mlx.core as mx

from gemma_mlx.adapters import mlx_lm_format, peft_format
from gemma_mlx.adapters.adapter import Adapter
from gemma_mlx.adapters.parts import Config, Parts
from gemma_mlx.checkpoint import TensorInfo, fingerprint_of, read_header
from gemma_mlx.config import read_json
from gemma_mlx.errors import CheckpointError

CONFIG_FILE = "adapter_config.json"

Shapes = Mapping[str, tuple[int, ...]]


def read_adapter(folder: Path, shapes: Shapes) -> Adapter:
    """The adapter in `folder` for a model whose tensors, unpacked, have `shapes` by canonical name.

    Afterwards every tensor of it has its place in the model, and none holds NaN or infinity. The numbers are read when
    they are evaluated. Raises CheckpointError for a folder that holds none, a pickled one, one for another model and a
    kind that is not known here.
    """
    if not (folder / CONFIG_FILE).is_file():
        raise CheckpointError(f"{folder} holds no {CONFIG_FILE}; name a folder that mlx_lm.lora or PEFT wrote")
    config = read_json(folder / CONFIG_FILE)
    file = _weights_file(folder, config)
    infos = {info.name: info for info in read_header(file)}
    if not infos:
        raise CheckpointError(f"{file} holds no tensors; copy the adapter again")
    _check_numbers(file, infos)
    try:
        read_parts = peft_format.read_parts if peft_format.is_peft(config) else mlx_lm_format.read_parts
        parts = read_parts(config, _lazy(file))
    except CheckpointError as error:
        raise CheckpointError(f"the adapter in {folder} cannot be used: {error}") from None
    _check_fit(folder, parts, infos, shapes)
    whole = {path: infos[name] for path, name in parts.whole.items()}
    digest = fingerprint_of(folder / CONFIG_FILE, [file])
    return Adapter(folder, parts.kind, parts.updates, whole, digest)


def _weights_file(folder: Path, config: Config) -> Path:
    if peft_format.is_peft(config):
        name = peft_format.FILE
    elif mlx_lm_format.is_mlx_lm(config):
        name = mlx_lm_format.FILE
    else:
        raise CheckpointError(f"{folder / CONFIG_FILE} is neither mlx-lm's nor PEFT's; name another adapter")
    if not (folder / name).is_file():
        pickled = (folder / peft_format.PICKLED_FILE).exists()
        why = "pickled weights can run code and are not read; save it as safetensors" if pickled else "copy it again"
        raise CheckpointError(f"{folder} has no {name}: {why}")
    return folder / name


def _lazy(file: Path) -> dict[str, mx.array]:
    found = mx.load(str(file), format="safetensors")
    assert isinstance(found, dict)
    return found


def _check_numbers(file: Path, infos: Mapping[str, TensorInfo]) -> None:
    """Raises CheckpointError unless all are finite numbers. Reads one tensor at a time and keeps none."""
    arrays = _lazy(file)
    for name, info in infos.items():
        if info.dtype not in ("BF16", "F32", "F16"):
            raise CheckpointError(
                f"{file} holds {name} as {info.dtype}, an adapter has BF16, F32 or F16; copy it again"
            )
        if not mx.isfinite(arrays.pop(name)).all().item():
            raise CheckpointError(f"{name} in {file} holds NaN or infinity; the training failed, or copy it again")


def _check_fit(folder: Path, parts: Parts, infos: Mapping[str, TensorInfo], shapes: Shapes) -> None:
    """Raises CheckpointError where the adapter changes what the model does not have, or has in another shape."""
    trained_on = f"; it was trained on {parts.base!r}" if parts.base else ""
    advice = "name one that was trained on this model"
    changes: dict[str, tuple[int, ...]] = {f"{path}.weight": update.shape for path, update in parts.updates.items()}
    changes |= {path: infos[name].shape for path, name in parts.whole.items()}
    if half := [name for name in parts.whole.values() if infos[name].dtype == "F16"]:
        raise CheckpointError(
            f"the adapter in {folder} cannot be used: {half[0]} is a whole tensor in float16, in which Gemma 4 "
            "overflows; save it in bfloat16 or float32"
        )
    for name, shape in changes.items():
        if name not in shapes:
            raise CheckpointError(
                f"the adapter in {folder} is of another model: it changes {name.removesuffix('.weight')}, which is not "
                f"in this one{trained_on}; {advice}"
            )
        if shape != shapes[name]:
            raise CheckpointError(
                f"the adapter in {folder} is of another model: it changes {name} of shape {list(shape)}, which has "
                f"{list(shapes[name])} in this one{trained_on}; {advice}"
            )
