"""Bytes against context: what the plan says, and what MLX's own counters say of a run, one process per point.

A point's caches are filled with random rows (`random_rows.py`), then real tokens are decoded over them and one prefill
chunk is run. Layouts: "shared" is ours, "plain" the two tensors that others store, and a peer's name is that peer.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from benchmarks.machine import adapter_facts, fingerprint, on_cpu, where_measured
from benchmarks.peer_point import PEERS, PREFILL_TOKENS
from benchmarks.point import DTYPES, PointSettings
from benchmarks.report import Form
from gemma_mlx.adapters.adapter import Adapter
from gemma_mlx.config import TextConfig, read_config
from gemma_mlx.errors import UsageError
from gemma_mlx.machine import Machine, mac, this_machine
from gemma_mlx.memory import Plan, Planner, sliding_bytes, stored_numbers
from gemma_mlx.model.masks import BlockSizes
from gemma_mlx.model.quantized_cache import check_kv_bits
from gemma_mlx.weights import computing_dtype

CONTEXTS = (4096, 32_768, 65_536, 131_072, 262_144)
LAYOUTS = ("shared", "plain")
MACS = ("16GB", "18GB", "24GB")
SEED = 20260
FORM = Form(
    name="memory",
    place=("context_tokens", "layout"),
    drawn=frozenset({"mac_limits_bytes"}),
    sorted_by="context_tokens",
    lists=("points", "needle"),
    replanned=("planned_bytes", "fits"),
)
_OF_ALL_POINTS = ("folder", "adapter", "dtype", "seed")
"""Settings that the report tells once."""
Point = dict[str, Any]


@dataclass(frozen=True)
class Series:
    """What to measure. `contexts` None: the usual ones, up to what the model has."""

    folder: Path
    adapter: Adapter | None = None
    """What is laid over the model."""
    contexts: Sequence[int] | None = None
    layouts: Sequence[str] = LAYOUTS
    peers: Sequence[str] = ()
    dtype: str | None = None
    """A name in `DTYPES`; None: what this machine computes in."""
    kv_bits: int | None = None
    decode_tokens: int = 2
    prefill_tokens: int | None = None
    """None: the plan's chunk, and a peer's own."""
    snapshots: int = 0
    """Copies of the sliding layers' state that are held meanwhile: a conversation has some, a single question none."""
    memory: str | None = None
    """The Mac to plan for, as "16GB"; None: this machine."""


@dataclass(frozen=True)
class PlannedPoint:
    """A point still to be measured; `planned_bytes` is None for a peer, which has no plan."""

    settings: PointSettings
    planned_bytes: int | None
    fits: bool | None

    @property
    def facts(self) -> Point:
        """What is known before measuring."""
        told = {key: value for key, value in asdict(self.settings).items() if key not in _OF_ALL_POINTS}
        return {**told, "rows": "random", "planned_bytes": self.planned_bytes, "fits": self.fits}


def plan_series(series: Series) -> list[PlannedPoint]:
    """Every point of `series`, the smallest contexts first. Raises UsageError for what cannot be measured."""
    for peer in series.peers:
        if find_spec(PEERS[peer]) is None:
            raise UsageError(f"{peer} is not installed here; install it with: pip install {peer}")
    if series.adapter and series.peers:
        raise UsageError(f"--adapter has no effect on {series.peers[0]}; leave out --peer or --adapter")
    if series.kv_bits and "plain" in series.layouts:
        raise UsageError("--kv-bits is for our rows only; add --layouts shared")
    text = read_config(series.folder).text
    check_kv_bits(text, series.kv_bits)
    contexts = _contexts(series.contexts, text)
    machine = planned_machine(series)
    return [
        _plan_point(series, text, machine, context, layout)
        for context in contexts
        for layout in (*series.layouts, *series.peers)
    ]


def planned_machine(series: Series) -> Machine:
    """The machine to plan for; the CPU's copies are planned where a CPU will do the measuring."""
    return replace(mac(series.memory), is_cpu=on_cpu()) if series.memory else this_machine()


def _contexts(asked: Sequence[int] | None, text: TextConfig) -> list[int]:
    longest = text.max_position_embeddings
    if asked is None:
        return sorted({*(context for context in CONTEXTS if context < longest), longest})
    for context in asked:
        if not 0 < context <= longest:
            raise UsageError(f"a context of {context:,} tokens: the model has 1 to {longest:,}")
    return sorted(set(asked))


def _plan_point(series: Series, text: TextConfig, machine: Machine, context: int, layout: str) -> PlannedPoint:
    dtype = DTYPES[series.dtype] if series.dtype else computing_dtype()
    kv_bits = series.kv_bits if layout == "shared" else None
    adapter = series.adapter
    stored = stored_numbers(series.folder, adapter.whole if adapter else {})
    adapter_bytes = adapter.nbytes(dtype.size) if adapter else 0
    planner = Planner(read_config(series.folder), stored, machine, dtype, kv_bits, adapter_bytes=adapter_bytes)
    plan = planner.plan(context)
    is_peer = layout in series.peers
    usual = PREFILL_TOKENS if is_peer else plan.chunk_tokens
    room = context - series.decode_tokens - 1
    prefill = max(0, min(usual, room)) if series.prefill_tokens is None else series.prefill_tokens
    if room < prefill:
        raise UsageError(
            f"a context of {context:,} tokens has no room for {series.decode_tokens:,} to decode and {prefill:,} to "
            "prefill; name a longer one, or fewer with --tokens and --prefill-tokens"
        )
    settings = PointSettings(
        folder=str(series.folder),
        adapter=str(adapter.folder) if adapter else None,
        context_tokens=context,
        layout=layout,
        dtype=next(name for name, found in DTYPES.items() if found == dtype),
        kv_bits=kv_bits,
        decode_tokens=series.decode_tokens,
        prefill_tokens=prefill,
        snapshots=0 if is_peer else series.snapshots,
        block_sizes=asdict(plan.pace.block_sizes if layout == "shared" else BlockSizes()),  # others have no blocks
        seed=SEED,
    )
    if is_peer:
        return PlannedPoint(settings, None, None)
    snapshot_bytes = sliding_bytes(text, min(text.sliding_window - 1, context), dtype.size)
    own = plan.total_bytes - plan.snapshot_bytes if layout == "shared" else _plain_bytes(planner, plan, prefill)
    planned = own + series.snapshots * snapshot_bytes
    return PlannedPoint(settings, planned, planned <= plan.limit_bytes)


def _plain_bytes(planner: Planner, plan: Plan, prefill_tokens: int) -> int:
    """What two tensors and one attention over all queries of a chunk take: nothing is strided, and nothing in blocks.

    The factor 3/2 of a chunk's scores is as measured.
    """
    text, item_bytes = planner.config.text, planner.dtype.size
    full_cache_bytes = plan.full_cache_bytes * 2 * text.global_head_dim // text.row_dims
    scores = text.num_attention_heads * plan.context_tokens
    decode_bytes = 2 * scores * item_bytes + 16 * 4 * text.vocab_size
    prefill_bytes = planner.full_layer_bytes(prefill_tokens, 3 * scores * prefill_tokens // 2)
    scratch_bytes = max(decode_bytes, prefill_bytes if prefill_tokens else 0)
    return plan.weights_bytes + plan.adapter_bytes + full_cache_bytes + plan.sliding_cache_bytes + scratch_bytes


def series_facts(series: Series, points: Sequence[PlannedPoint]) -> dict[str, Any]:
    """What all points have in common: model, machine, versions, types. Two runs that agree here can be put together."""
    machine = planned_machine(series)
    adapter = series.adapter
    return {
        "benchmark": "memory",
        "model": series.folder.resolve().name,
        "miniature": read_config(series.folder).is_miniature,
        "fingerprint": fingerprint(series.folder),
        **adapter_facts(adapter.folder if adapter else None, adapter.digest if adapter else None),
        "planned_for": machine.name,
        "limit_bytes": machine.limit_bytes,
        **where_measured(),
        "dtype": points[0].settings.dtype,
        "kv_bits": series.kv_bits,
        "decode_tokens": series.decode_tokens,
        "snapshots": series.snapshots,
        "prefill_tokens": "plan" if series.prefill_tokens is None else series.prefill_tokens,
        "rows": "random",
        "seed": SEED,
        "mac_limits_bytes": {name: mac(name).limit_bytes for name in MACS},
    }
