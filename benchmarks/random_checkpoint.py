"""A checkpoint of the released size and names with random numbers: what size and time depend on, without the download.

    python -m benchmarks.random_checkpoint CONFIG OUT [--layers N] [--vocabulary N] [--seed N]

CONFIG is a config.json in the released format, of the model or of its drafter: in a checkout
`tests/golden/released_config.json` and `released_drafter_config.json`. Matrices are normal with a standard deviation of
0.02, norms and layer scalars 1, biases 0, so that a pass through all layers stays finite. The numbers are cut from one
block of four million at random places: they repeat, which nothing that is measured here depends on. Tokenizer, chat
template and processor are the miniature's, and with them the ids of special tokens.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
import numpy.typing as npt

from convert.shards import OutputTensor, Shard, ShardWriter, as_numbers, plan_shards
from gemma_mlx.checkpoint import INDEX_FILE
from gemma_mlx.config import parse_config, read_config, read_json
from gemma_mlx.drafter_config import DRAFTER_TYPE, parse_drafter_config
from gemma_mlx.errors import CheckpointError, GemmaError, UsageError
from gemma_mlx.home import miniature_folder
from gemma_mlx.model.drafter import Drafter
from gemma_mlx.model.gemma4 import Gemma4

STANDARD_DEVIATION = 0.02
BLOCK_NUMBERS = 1 << 22
SHARD_BYTES = 5_000_000_000
TEXT_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "chat_template.jinja",
    "processor_config.json",
    "generation_config.json",
)


@dataclass(frozen=True)
class RandomCheckpoint:
    """What is written."""

    config: dict[str, Any]
    """Its config.json."""
    shapes: dict[str, tuple[int, ...]]
    """Of every tensor, by Google's name of it on disk."""

    @property
    def numbers(self) -> int:
        return sum(math.prod(shape) for shape in self.shapes.values())

    @property
    def is_drafter(self) -> bool:
        return bool(self.config["model_type"] == DRAFTER_TYPE)


def random_checkpoint(released: Path, layers: int | None = None, vocabulary: int | None = None) -> RandomCheckpoint:
    """A checkpoint as in the config.json `released`, or with its last `layers` layers, or with fewer tokens.

    Raises CheckpointError for a config of another model, UsageError for layers or tokens that it cannot have.
    """
    config, miniature = read_json(released), read_json(miniature_folder() / "config.json")
    config |= {name: found for name, found in miniature.items() if name.endswith(("_token_id", "_token_index"))}
    _check(config, layers, vocabulary, least_tokens=read_config(miniature_folder()).text.vocab_size)
    text = config["text_config"]
    if layers is not None:
        text |= {"num_hidden_layers": layers, "layer_types": text["layer_types"][-layers:]}
        if text.get("num_kv_shared_layers"):  # a drafter: all of them
            text["num_kv_shared_layers"] = layers
    if vocabulary is not None:
        text["vocab_size"] = vocabulary
    return RandomCheckpoint(config, _shapes(config))


def _shapes(config: dict[str, Any]) -> dict[str, tuple[int, ...]]:
    """Google's names and the shapes; nothing is computed for them."""
    if config["model_type"] != DRAFTER_TYPE:
        return {f"model.{name}": shape for name, shape in Gemma4(parse_config(config)).shapes().items()}
    outside = "pre_projection", "post_projection"
    shapes = Drafter(parse_drafter_config(config)).shapes()
    return {name if name.startswith(outside) else f"model.{name}": shape for name, shape in shapes.items()}


def _check(config: dict[str, Any], layers: int | None, vocabulary: int | None, least_tokens: int) -> None:
    if config.get("model_type") == DRAFTER_TYPE:
        drafter = parse_drafter_config(config)
        text = drafter.text
        if drafter.use_ordered_embeddings:
            raise UsageError("a drafter with ordered embeddings is not made here; name a config without them")
    else:
        text = parse_config(config).text
    if layers is not None and not ("layer_types" in config["text_config"] and 1 <= layers <= text.num_hidden_layers):
        raise UsageError(f"the config names no {layers} layer_types; ask for 1 to {text.num_hidden_layers} layers")
    if vocabulary is not None and not least_tokens <= vocabulary <= text.vocab_size:
        raise UsageError(
            f"a vocabulary of {vocabulary:,}: the tokenizer has {least_tokens:,} tokens and the model "
            f"{text.vocab_size:,}; ask for as many or a number between"
        )


def write_checkpoint(checkpoint: RandomCheckpoint, destination: Path, seed: int = 0) -> None:
    """Writes `checkpoint` to the new folder `destination`; the same `seed` writes the same bytes.

    After an error or interruption the folder is not there. Raises UsageError where it exists, CheckpointError where it
    cannot be written and for a disk that is too small.
    """
    partial = destination.with_name(f"{destination.name}.partial")
    for folder in (destination, partial):
        if os.path.lexists(folder):
            raise UsageError(f"{folder} exists and is not overwritten; name a new folder or remove it first")
    tensors = [OutputTensor(name, "BF16", shape) for name, shape in checkpoint.shapes.items()]
    shards = plan_shards([[tensor] for tensor in tensors], SHARD_BYTES)
    try:
        partial.mkdir()
        try:
            _write_files(checkpoint, partial, tensors, shards, seed)
            partial.rename(destination)
        except BaseException:
            shutil.rmtree(partial, ignore_errors=True)
            raise
    except OSError as error:
        raise CheckpointError(f"cannot write {destination}: {error.strerror}; nothing was kept") from None


def _write_files(
    checkpoint: RandomCheckpoint, folder: Path, tensors: list[OutputTensor], shards: list[Shard], seed: int
) -> None:
    needed_bytes, free_bytes = sum(shard.nbytes for shard in shards), shutil.disk_usage(folder).free
    if needed_bytes > free_bytes:
        raise CheckpointError(
            f"the weights need {needed_bytes / 1e9:,.2f} GB and the disk has {free_bytes / 1e9:,.2f} GB free; free "
            "some, name a folder on another disk, or ask for fewer --layers"
        )
    _write_json(folder / "config.json", checkpoint.config)
    for name in () if checkpoint.is_drafter else TEXT_FILES:
        shutil.copyfile(miniature_folder() / name, folder / name)
    _write_json(
        folder / INDEX_FILE,
        {
            "metadata": {"total_size": sum(shard.tensor_bytes for shard in shards)},
            "weight_map": {name: shard.file_name for shard in shards for name in shard.places},
        },
    )
    block = _Block(seed)
    for shard in shards:
        with ShardWriter(folder, shard) as writer:
            for tensor in tensors:
                if tensor.name in shard.places:
                    for rows in _slices(tensor, block):
                        writer.write(tensor.name, rows)
            writer.require_whole(shard.places)
            writer.sync()


def _write_json(path: Path, data: dict[str, Any]) -> None:
    path.write_text(json.dumps(data, indent=2) + "\n", encoding="utf-8")


class _Block:
    """Random numbers made once, of which any stretch is taken."""

    def __init__(self, seed: int) -> None:
        self._places = np.random.default_rng(seed)
        normal = self._places.standard_normal(BLOCK_NUMBERS, dtype=np.float32)
        once = _bits(mx.array(normal * STANDARD_DEVIATION))
        self._twice = np.concatenate([once, once])  # a stretch may go over the end

    def stretch(self, numbers: int) -> npt.NDArray[np.uint16]:
        """So many of them from a random place on, at most BLOCK_NUMBERS."""
        start = int(self._places.integers(BLOCK_NUMBERS))
        return self._twice[start : start + numbers]


def _bits(numbers: mx.array) -> npt.NDArray[np.uint16]:
    """The bits of `numbers` in bfloat16."""
    return as_numbers(numbers.astype(mx.bfloat16))


def _slices(tensor: OutputTensor, block: _Block) -> Iterator[npt.NDArray[np.uint16]]:
    """All rows of `tensor` in order, as bits of bfloat16 [rows, ...], at most a block at a time."""
    row_shape = tensor.shape[1:]
    rows_at_once = max(1, BLOCK_NUMBERS // math.prod(row_shape))
    for first in range(0, tensor.shape[0], rows_at_once):
        shape = min(rows_at_once, tensor.shape[0] - first), *row_shape
        if len(tensor.shape) > 1:
            yield block.stretch(math.prod(shape)).reshape(shape)
        else:  # a norm's weight or bias, or a layer's scalar
            yield _bits((mx.zeros if tensor.name.endswith(".bias") else mx.ones)(shape))


def main(arguments: list[str] | None = None) -> int:
    """Writes what the command line asks for; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.random_checkpoint", description="Write a checkpoint with random numbers."
    )
    parser.add_argument("config", type=Path, metavar="CONFIG", help="config.json of the model or of its drafter")
    parser.add_argument("out", type=Path, metavar="OUT", help="new folder to write")
    parser.add_argument("--layers", type=int, metavar="N", help="only the last N layers")
    parser.add_argument("--vocabulary", type=int, metavar="N", help="only N tokens")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="the same seed writes the same bytes")
    asked = parser.parse_args(arguments)
    try:
        checkpoint = random_checkpoint(asked.config, asked.layers, asked.vocabulary)
        size = f"{len(checkpoint.shapes)} tensors, {checkpoint.numbers:,} numbers, {2e-9 * checkpoint.numbers:.2f} GB"
        sys.stderr.write(f"writing {size}\n")
        write_checkpoint(checkpoint, asked.out, asked.seed)
    except GemmaError as error:
        sys.stderr.write(f"{error}\n")
        return error.exit_code
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
