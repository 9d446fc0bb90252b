"""What a conversion does to the weights: how many bits, and which tensors are packed at all."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from gemma_mlx.errors import UsageError

PACKED_MODULES = frozenset(
    ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj", "embed_tokens"]
)
"""The decoder's matrices and its embedding (which is also its head): 99.6 % of the 12B's numbers. The patch embedder,
both projections into the decoder and the norms are sensitive and small; they stay whole in every recipe."""
PACKED_IN_DRAFTERS = frozenset(["pre_projection", "post_projection"])
"""What only a drafter has is packed, too: its errors cost time, never a word."""


@dataclass(frozen=True)
class Recipe:
    """`bits` per number, in groups of `group_size` that share a scale and a bias; None: bfloat16, nothing packed."""

    bits: int
    group_size: int | None

    def packs(self, name: str) -> bool:
        """Whether the tensor with this canonical name is packed."""
        return self.group_size is not None and module_kind(name) in PACKED_MODULES | PACKED_IN_DRAFTERS


RECIPES = {
    "4bit": Recipe(bits=4, group_size=64),
    "8bit": Recipe(bits=8, group_size=64),
    "bf16": Recipe(bits=16, group_size=None),
}


def recipe_named(name: str) -> Recipe:
    """The recipe called `name`. Raises UsageError that lists all of them."""
    if name not in RECIPES:
        raise UsageError(f"there is no recipe {name!r}; choose one of {', '.join(RECIPES)}")
    return RECIPES[name]


def module_kind(name: str) -> str:
    """ "gate_proj" for "language_model.layers.3.mlp.gate_proj.weight"."""
    return name.split(".")[-2]


def stored_by_recipe(shapes: Mapping[str, tuple[int, ...]], recipe: Recipe) -> dict[str, int]:
    """How many numbers of each type a conversion writes for tensors of `shapes` by canonical name."""
    stored = {"U32": 0, "BF16": 0}
    for name, shape in shapes.items():
        numbers = math.prod(shape)
        if recipe.group_size is not None and recipe.packs(name):
            stored["U32"] += numbers * recipe.bits // 32
            numbers = 2 * (numbers // recipe.group_size)  # a scale and a bias each
        stored["BF16"] += numbers
    return stored
