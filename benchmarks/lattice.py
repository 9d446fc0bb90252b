"""What becomes of numbers that were trained for 4 bits when they are packed: three rules on the same matrix.

`python -m benchmarks.lattice` makes a matrix by the published rule of Google's QAT release and prints the table;
`python -m benchmarks.lattice FOLDER` takes one tensor out of each kind in that release.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import mlx.core as mx
import numpy as np

from convert.lattice import BLOCK, pack_lattice_rows
from convert.packing import PackedRows, pack_rows
from convert.recipes import RECIPES, TRAINED_FOR_4_BITS, Packing, module_kind
from convert.source import read_source
from gemma_mlx.errors import GemmaError

MOST_NUMBERS = 1 << 24
"""Of one tensor."""
ROWS, COLUMNS = 1024, 3840


@dataclass(frozen=True)
class LatticeError:
    """Of one rule; `blocks_exact` and `numbers_same` once rounded to bfloat16, as shares."""

    rule: str
    bits_per_weight: float
    blocks_exact: float
    numbers_same: float
    relative_error: float
    """RMS of what changed over RMS of the numbers, before anything is rounded to bfloat16."""


def _unpacked(packed: PackedRows) -> mx.array:
    return _dequantized(packed.codes, packed.scales, packed.biases)


def _dequantized(codes: mx.array, scales: mx.array, biases: mx.array) -> mx.array:
    scales, biases = scales.astype(mx.float32), biases.astype(mx.float32)
    return mx.dequantize(codes, scales, biases, group_size=BLOCK, bits=4)


def _mx_quantize(rows: mx.array) -> mx.array:
    codes, scales, biases = mx.quantize(rows, group_size=BLOCK, bits=4)
    return _dequantized(codes, scales, biases)


def _extremum_is_level_8(rows: mx.array) -> mx.array:
    """As llama.cpp packs q4_0: the extremum, with its sign, stands on -8; float16 scales."""
    blocks = rows.astype(mx.float32).reshape(-1, BLOCK)
    extremum = mx.take_along_axis(blocks, mx.argmax(mx.abs(blocks), axis=1, keepdims=True), axis=1)
    step = extremum / -8
    levels = mx.clip(mx.floor(blocks / mx.where(step == 0, 1, step) + 8.5), 0, 15) - 8
    return (levels * step.astype(mx.float16).astype(mx.float32)).reshape(rows.shape)


RULES: dict[str, tuple[float, Callable[[mx.array], mx.array]]] = {
    "mx.quantize, group 32": (5.0, _mx_quantize),
    "4bit-g32": (5.0, lambda rows: _unpacked(pack_rows(rows, Packing(bits=4, group_size=BLOCK)))),
    "extremum on level 8 (q4_0)": (4.5, _extremum_is_level_8),
    "qat": (5.0, lambda rows: _unpacked(pack_lattice_rows(rows, TRAINED_FOR_4_BITS))),
    "qat-f32": (6.0, lambda rows: _unpacked(pack_lattice_rows(rows, replace(TRAINED_FOR_4_BITS, scale_dtype="F32")))),
}
"""Bits per weight, and numbers [R, columns] -> what is stored for them, in float32."""


def lattice_errors(rows: mx.array) -> list[LatticeError]:
    """Each rule on the same `rows` [R, columns] in bfloat16."""
    original = np.array(rows.astype(mx.float32), dtype=np.float64)
    errors = []
    for rule, (bits, stored_for) in RULES.items():
        stored = stored_for(rows)
        same = np.array(stored.astype(mx.bfloat16) == rows).reshape(-1, BLOCK)
        moved = np.array(stored, dtype=np.float64) - original
        relative_error = float(np.sqrt(np.square(moved).sum() / np.square(original).sum()))
        errors.append(LatticeError(rule, bits, float(same.all(axis=1).mean()), float(same.mean()), relative_error))
    return errors


def trained_rows(rows: int = ROWS, columns: int = COLUMNS) -> mx.array:
    """A normal matrix as Google's QAT release would hold it: step = largest |number| / 8 of a block, in float32; levels
    rounded and clipped to -8..7; step x level in bfloat16."""
    blocks = np.random.default_rng(0).normal(size=(rows, columns // BLOCK, BLOCK)).astype(np.float32)
    steps = np.abs(blocks).max(axis=2, keepdims=True) / np.float32(8)
    levels = np.clip(np.rint(blocks / steps), -8, 7).astype(np.float32)
    return mx.array((steps * levels).reshape(rows, columns)).astype(mx.bfloat16)


def _released_rows(folder: Path) -> Iterator[tuple[str, mx.array]]:
    """The beginning of one tensor of each kind."""
    kinds = set()
    source = read_source(folder)
    for name, tensor in source.tensors.items():
        if RECIPES["qat"].packing_of(name) is not None and module_kind(name) not in kinds:
            kinds.add(module_kind(name))
            parts, numbers = [], 0
            for part in tensor.slices():
                parts.append(part.astype(mx.bfloat16))
                numbers += part.size
                if numbers >= MOST_NUMBERS:
                    break
            yield tensor.name, mx.concatenate(parts)


def table(errors: list[LatticeError]) -> str:
    """In Markdown."""
    lines = [
        "| rule | bits per weight | blocks exact | numbers the same | relative RMS error |",
        "|---|---:|---:|---:|---:|",
    ]
    lines += [
        f"| {error.rule} | {error.bits_per_weight} | {error.blocks_exact:.1%} | {error.numbers_same:.2%} | "
        f"{error.relative_error:.2%} |"
        for error in errors
    ]
    return "\n".join(lines)


def main() -> int:
    """Measures and prints what the command line asks for; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.lattice", description="What packing makes of numbers that were trained for 4 bits."
    )
    parser.add_argument("folder", type=Path, nargs="?", metavar="FOLDER", help="a release trained for 4 bits")
    asked = parser.parse_args()
    found = {}
    try:
        for name, rows in _released_rows(asked.folder) if asked.folder else [("by the rule", trained_rows())]:
            found[name] = lattice_errors(rows)
            sys.stderr.write(f"{name}, {rows.shape[0]:,} x {rows.shape[1]:,}\n\n{table(found[name])}\n\n")
    except GemmaError as error:
        sys.stderr.write(f"{error}\n")
        return error.exit_code
    sys.stdout.write(json.dumps({name: [asdict(error) for error in errors] for name, errors in found.items()}) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
