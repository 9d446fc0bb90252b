"""Numbers as a QAT release holds them, made by its published rule and by no code of ours: the step of a block of 32 is
its largest |number| / 8 in float32, levels are rounded and clipped to -8..7, and step x level is stored in bfloat16."""

from __future__ import annotations

from dataclasses import dataclass

import mlx.core as mx
import numpy as np
from numpy.typing import NDArray

from tests.convert.small_source import source_tensors

PACKED = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj", "embed_tokens"]


@dataclass(frozen=True)
class Trained:
    """What a trained matrix became."""

    weights: mx.array
    """bfloat16, as released."""
    levels: NDArray[np.float32]
    steps: NDArray[np.float32]
    """[rows, columns / 32, 1]."""


def trained(master: NDArray[np.float32]) -> Trained:
    """`master` [rows, columns] on the lattice."""
    blocks = master.reshape(len(master), -1, 32)
    steps = (np.abs(blocks).max(axis=-1, keepdims=True) / np.float32(8)).astype(np.float32)
    levels = np.clip(np.rint(blocks / np.where(steps > 0, steps, 1)), -8, 7).astype(np.float32)
    released = mx.array((steps * levels).reshape(master.shape)).astype(mx.bfloat16)
    return Trained(released, levels.reshape(master.shape), steps)


def trained_matrix(rows: int = 256, columns: int = 256, seed: int = 0) -> Trained:
    """A normal one, with rows of different sizes."""
    random = np.random.default_rng(seed)
    sizes = np.exp(random.normal(-4, 1.5, (rows, 1)))
    return trained((random.normal(size=(rows, columns)) * sizes).astype(np.float32))


def is_packed(name: str) -> bool:
    return name.startswith("model.language_model.") and name.split(".")[-2] in PACKED


def trained_tensors() -> dict[str, mx.array]:
    """The small checkpoint, with every matrix that is packed on the lattice, the token table among them.

    Its numbers have few digits; so that the steps have many, they are made longer first.
    """
    return {
        name: trained(np.array(array * mx.array(1.0712345))).weights if is_packed(name) else array
        for name, array in source_tensors().items()
    }
