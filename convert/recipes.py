"""What a conversion does to the weights: how many bits, and which tensors are packed at all."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from gemma_mlx.checkpoint import DTYPE_BYTES
from gemma_mlx.errors import UsageError

PACKED_MODULES = frozenset(
    ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj", "embed_tokens"]
)
"""The decoder's matrices and its embedding (which is also its head): 99.6 % of the 12B's numbers. The patch embedder,
both projections into the decoder and the norms are sensitive and small; they stay whole in every recipe."""
PACKED_IN_DRAFTERS = frozenset(["pre_projection", "post_projection"])
"""What only a drafter has is packed, too: its errors cost time, never a word."""


@dataclass(frozen=True)
class Packing:
    """`bits` per number (2, 3, 4, 5, 6 or 8), in groups of `group_size` (32, 64, 128) that share a scale and a bias."""

    bits: int
    group_size: int
    on_lattice: bool = False
    """Whether the numbers were trained for 4 bits, so that their codes are found again and not made (`lattice.py`)."""
    scale_dtype: str = "BF16"
    """Of scales and biases: "BF16" or "F32", in the format's words."""

    @property
    def bits_per_weight(self) -> float:
        """Bits on disk for a number, its share of scale and bias included."""
        return self.bits + 16 * DTYPE_BYTES[self.scale_dtype] / self.group_size


@dataclass(frozen=True)
class Recipe:
    """How the modules in `PACKED_MODULES` are packed; None: bfloat16, nothing packed."""

    name: str
    packing: Packing | None
    overrides: Mapping[str, Packing] = field(default_factory=dict)
    """Canonical module path -> the packing of a module that differs."""
    round_off_lattice: bool = False
    """Whether blocks that are not on the lattice where they should be are rounded, or refused."""
    chosen_on: str = ""
    """The prompts by whose damage the packings were chosen, in words; empty where none were."""

    def packing_of(self, name: str) -> Packing | None:
        """How the tensor with this canonical name is packed; None where it stays whole."""
        if self.packing is None or module_kind(name) not in PACKED_MODULES | PACKED_IN_DRAFTERS:
            return None
        return self.overrides.get(name.removesuffix(".weight"), self.packing)


TRAINED_FOR_4_BITS = Packing(bits=4, group_size=32, on_lattice=True)
"""As Google's QAT release was trained."""

RECIPES = {
    recipe.name: recipe
    for recipe in (
        Recipe("4bit", Packing(bits=4, group_size=64)),
        Recipe("4bit-g32", Packing(bits=4, group_size=32)),
        Recipe("6bit", Packing(bits=6, group_size=64)),
        Recipe("8bit", Packing(bits=8, group_size=64)),
        Recipe("qat", TRAINED_FOR_4_BITS),
        Recipe("qat-f32", replace(TRAINED_FOR_4_BITS, scale_dtype="F32")),
        Recipe("bf16", None),
    )
}


def recipe_named(name: str, *, round_off_lattice: bool = False, others: Sequence[str] = ()) -> Recipe:
    """The recipe called `name`.

    Raises UsageError that lists all of them, with `others` that the caller knows, and where there is nothing to round
    because no lattice is looked for.
    """
    if name not in RECIPES:
        raise UsageError(f"there is no recipe {name!r}; choose one of {', '.join([*RECIPES, *others])}")
    recipe = RECIPES[name]
    if round_off_lattice and not (recipe.packing and recipe.packing.on_lattice):
        raise UsageError(f"--round rounds what is off the lattice of --recipe qat; leave it out with --recipe {name}")
    return replace(recipe, round_off_lattice=round_off_lattice)


def module_kind(name: str) -> str:
    """ "gate_proj" for "language_model.layers.3.mlp.gate_proj.weight"."""
    return name.split(".")[-2]


def stored_by_recipe(shapes: Mapping[str, tuple[int, ...]], recipe: Recipe) -> dict[str, int]:
    """How many numbers of each type a conversion writes for tensors of `shapes` by canonical name."""
    stored = {"U32": 0, "BF16": 0, "F32": 0, "I64": 0}
    for name, shape in shapes.items():
        numbers = math.prod(shape)
        packing = recipe.packing_of(name)
        if packing is None:
            stored["I64" if name.endswith("token_ordering") else "BF16"] += numbers
        else:
            stored["U32"] += numbers * packing.bits // 32
            stored[packing.scale_dtype] += 2 * (numbers // packing.group_size)  # a scale and a bias each
    return stored
