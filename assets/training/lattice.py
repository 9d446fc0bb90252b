"""Rounds the miniature as Google's QAT release was rounded: `python -m assets.training.lattice assets/miniature OUT`.

Each block of 32 numbers of the text linears and the embedding becomes bf16(step x q): step = absmax / 8 in float32, q =
w / step to the nearest level from -8 to 7. Unlike that release the miniature is not trained any further for it: OUT
answers a little worse than its source, and stands for a QAT release only where a conversion of one is measured.
"""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path

import mlx.core as mx

from convert.lattice import BLOCK, HIGHEST, LOWEST
from convert.recipes import PACKED_MODULES, module_kind


def on_lattice(weight: mx.array) -> mx.array:
    """`weight` [R, columns] with each number on a level of its block's lattice, in bfloat16."""
    blocks = weight.astype(mx.float32).reshape(-1, BLOCK)
    steps = mx.abs(blocks).max(axis=1, keepdims=True) / 8
    levels = mx.clip(mx.round(blocks / mx.where(steps > 0, steps, 1)), LOWEST, HIGHEST)
    return (levels * steps).astype(mx.bfloat16).reshape(weight.shape)


def round_folder(source: Path, out: Path) -> None:
    """`out`, which must not exist, is a copy of the checkpoint in `source` with its text weights on the lattice."""
    shutil.copytree(source, out, ignore=shutil.ignore_patterns("drafter", "README.md", "scores.json"))
    file = out / "model.safetensors"
    weights = mx.load(str(file))
    assert isinstance(weights, dict)
    rounded = {
        name: on_lattice(weight) if weight.ndim == 2 and module_kind(name) in PACKED_MODULES else weight
        for name, weight in weights.items()
    }
    mx.eval(rounded)
    beside = file.with_name("rounded.safetensors")
    mx.save_safetensors(str(beside), rounded, metadata={"format": "pt"})
    beside.replace(file)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("source", type=Path)
    parser.add_argument("out", type=Path)
    arguments = parser.parse_args()
    round_folder(arguments.source, arguments.out)


if __name__ == "__main__":
    main()
