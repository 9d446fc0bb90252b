"""gemma-mlx plan: what a model and a context take, before anything is loaded."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gemma_mlx.errors import UsageError
from gemma_mlx.home import find_adapter, find_drafter, find_model
from gemma_mlx.terminal import options as flag
from gemma_mlx.terminal.failures import exit_codes, one_line, show_warnings_in_one_line
from gemma_mlx.terminal.output import Output, write_stdout
from gemma_mlx.terminal.safe import visible_line

if TYPE_CHECKING:
    from gemma_mlx.memory import Plan, Planner

_RECIPE_HELP = "Plan the folder as `convert` would pack it with this recipe. Its weights need not be there yet."

PARTS = {
    "weights_bytes": "weights",
    "drafter_bytes": "drafter",
    "adapter_bytes": "adapter",
    "full_cache_bytes": "full layers' rows",
    "sliding_cache_bytes": "sliding layers",
    "snapshot_bytes": "snapshots",
    "scratch_bytes": "scratch",
}


def plan(
    model: flag.Model = None,
    context: flag.PlannedContext = None,
    memory: flag.Memory = None,
    recipe: Annotated[str | None, typer.Option("--recipe", metavar="RECIPE", help=_RECIPE_HELP)] = None,
    kv_bits: flag.KvBits = None,
    drafter: flag.DrafterFolder = None,
    adapter: flag.AdapterFolder = None,
    as_json: flag.Json = False,
) -> None:
    """Show what fits: each part of the memory in bytes, and the largest context. Loads nothing.

    \b
    gemma-mlx plan --memory 16GB
    gemma-mlx plan -m gemma-4-12B-it --recipe 4bit --memory 16GB --context 128k
    """
    with exit_codes(as_json):
        show_warnings_in_one_line(Output())
        folder = find_model(model)
        planner = _planner(folder, memory, recipe, kv_bits, drafter, adapter)
        own_tokens = planner.config.text.max_position_embeddings
        if context is not None and context > own_tokens:
            raise UsageError(f"--context is {context:,}, but {folder.name} has {own_tokens:,} positions; ask for less")
        planned = planner.plan(context or own_tokens)
        if as_json:
            write_stdout(one_line(as_object(folder, planner, planned)) + "\n")
        else:
            write_stdout("\n".join(_table(folder, planner, planned)) + "\n")
        sys.exit(0 if planned.fits else 1)


def _planner(
    folder: Path, memory: str | None, recipe: str | None, kv_bits: int | None, drafter: str | None, adapter: str | None
) -> Planner:
    import mlx.core as mx

    from gemma_mlx.adapters.folder import read_adapter
    from gemma_mlx.config import read_config
    from gemma_mlx.machine import mac, this_machine
    from gemma_mlx.memory import Planner, stored_numbers, weights_bytes
    from gemma_mlx.model.gemma4 import Gemma4
    from gemma_mlx.model.quantized_cache import check_kv_bits
    from gemma_mlx.weights import computing_dtype

    config = read_config(folder)
    check_kv_bits(config.text, kv_bits)
    machine, dtype = (mac(memory), mx.bfloat16) if memory else (this_machine(), computing_dtype())
    shapes = Gemma4(config).shapes()
    adapted = read_adapter(find_adapter(adapter), shapes) if adapter is not None else None
    whole = adapted.whole if adapted else {}
    if recipe is None:
        stored = stored_numbers(folder, whole)
    else:
        from convert.recipes import recipe_named, stored_by_recipe

        chosen = recipe_named(recipe)
        stored = stored_by_recipe({name: shape for name, shape in shapes.items() if name not in whole}, chosen)
        stored["BF16"] += adapted.whole_numbers if adapted else 0
    drafter_folder = find_drafter(folder, drafter)
    drafter_bytes = weights_bytes(stored_numbers(drafter_folder), dtype.size) if drafter_folder else 0
    adapter_bytes = adapted.nbytes(dtype.size) if adapted else 0
    return Planner(config, stored, machine, dtype, kv_bits, drafter_bytes, adapter_bytes)


def as_object(folder: Path, planner: Planner, planned: Plan) -> dict[str, Any]:
    """The plan as `--json` says it."""
    return {
        "model": folder.resolve().name,
        "miniature": planner.config.is_miniature,
        "machine": planned.machine.name,
        "context_tokens": planned.context_tokens,
        "kv_bits": planned.kv_bits,
        **{name: getattr(planned, name) for name in PARTS},
        "total_bytes": planned.total_bytes,
        "reserve_bytes": planned.reserve_bytes,
        "limit_bytes": planned.limit_bytes,
        "missing_bytes": planned.missing_bytes,
        "fits": planned.fits,
        "largest_context_tokens": planner.largest_context_tokens(),
        "chunk_tokens": planned.chunk_tokens,
        "full_block_tokens": planned.pace.block_sizes.full_block_tokens(planned.context_tokens),
        "snapshots": planned.pace.snapshots,
    }


def _table(folder: Path, planner: Planner, planned: Plan) -> list[str]:
    """The same for people: a column for rows as they are, and one for 8-bit rows."""
    from gemma_mlx.memory import RELEASED_DRAFTER_BYTES, readable

    packed = planner.with_8_bit_rows()
    planners = [planner] if packed is None else [planner, packed]
    plans = [planned] if packed is None else [planned, packed.plan(planned.context_tokens)]
    rows = [("", [_rows_name(planner) for planner in planners])]
    for name, label in PARTS.items():
        if label == "snapshots":
            label = "snapshots, " + " and ".join(dict.fromkeys(str(plan.pace.snapshots) for plan in plans))
        sizes_bytes = [getattr(plan, name) for plan in plans]
        if any(sizes_bytes):
            rows.append((label, [readable(size_bytes) for size_bytes in sizes_bytes]))
    rows += [
        ("together", [readable(plan.total_bytes) for plan in plans]),
        ("reserve", [readable(plan.reserve_bytes) for plan in plans]),
        (f"in {readable(planned.limit_bytes)}", [_verdict(plan) for plan in plans]),
        ("largest context", [_largest(planner) for planner in planners]),
    ]
    if planner.drafter_bytes:
        rows.append(("without drafter", [_largest(replace(planner, drafter_bytes=0)) for planner in planners]))
    elif not planner.config.is_miniature:
        with_drafter = [replace(planner, drafter_bytes=RELEASED_DRAFTER_BYTES) for planner in planners]
        rows.append(("with a 4-bit drafter", [_largest(planner) for planner in with_drafter]))
    width = max(len(label) for label, _ in rows)
    title = (
        f"{visible_line(folder.resolve().name)} on {planned.machine.name}, context {planned.context_tokens:,} tokens, "
        f"prefill {planned.chunk_tokens} at once"
    )
    return [title, *(_row(label, cells, width) for label, cells in rows)]


def _rows_name(planner: Planner) -> str:
    kind = "bf16" if planner.dtype.size == 2 else "float32"
    return "8-bit rows" if planner.kv_bits else f"{kind} rows"


def _largest(planner: Planner) -> str:
    return f"{planner.largest_context_tokens():,}"


def _verdict(plan: Plan) -> str:
    from gemma_mlx.memory import readable

    return "fits" if plan.fits else f"{readable(plan.missing_bytes)} short"


def _row(label: str, cells: Sequence[str], width: int) -> str:
    return label.ljust(width) + "".join(cell.rjust(15) for cell in cells)
