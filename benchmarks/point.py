"""One point of a memory series, measured in a process of its own: what it is told, and what it tells.

The process writes a JSON line to stdout after each phase, with all that it knows by then, so that a process that is
killed in a later phase has still told the earlier ones.
"""

from __future__ import annotations

import json
import os
import resource
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import Any, Protocol

import mlx.core as mx

from benchmarks.machine import mlx_version, on_cpu

DTYPES = {"bfloat16": mx.bfloat16, "float32": mx.float32}


@dataclass(frozen=True)
class PointSettings:
    """What a process has to measure."""

    folder: str
    adapter: str | None
    context_tokens: int
    """Positions in all: the filled ones, the decoded ones and those of the prefill chunk."""
    layout: str
    """"shared" or "plain"; with a peer, its name."""
    dtype: str
    kv_bits: int | None
    decode_tokens: int
    prefill_tokens: int
    """One chunk of so many after the decoding; 0 for none."""
    snapshots: int
    """How many copies of the sliding layers' state are held meanwhile, as the plan would."""
    block_sizes: dict[str, int]
    seed: int

    @property
    def filled_tokens(self) -> int:
        return self.context_tokens - self.decode_tokens - self.prefill_tokens


class Runner(Protocol):
    """A loaded model with its caches."""

    def fill(self, settings: PointSettings) -> None:
        """The caches hold `filled_tokens` random rows afterwards."""

    def decode(self, tokens: int) -> None:
        """So many tokens more, one after the other."""

    def prefill(self, tokens: int) -> None:
        """So many tokens more, at once."""


def measure(load: Callable[[PointSettings], Runner], settings: PointSettings) -> Iterator[dict[str, Any]]:
    """Yields after each phase what is known by then; `peak_bytes` comes with the last one."""
    found: dict[str, Any] = {"mlx_version": mlx_version(), "device": "cpu" if on_cpu() else "gpu"}
    started_s = time.perf_counter()
    runner = load(settings)
    found["load_s"] = time.perf_counter() - started_s
    started_s = time.perf_counter()
    runner.fill(settings)
    mx.clear_cache()
    found |= {"active_bytes": mx.get_active_memory(), "fill_s": time.perf_counter() - started_s}
    yield found
    phases = [("decode", runner.decode, settings.decode_tokens), ("prefill", runner.prefill, settings.prefill_tokens)]
    peaks = []
    for name, run, tokens in phases:
        if tokens:
            mx.reset_peak_memory()
            started_s = time.perf_counter()
            run(tokens)
            peaks.append(mx.get_peak_memory())
            found |= {f"{name}_peak_bytes": peaks[-1], f"{name}_s": time.perf_counter() - started_s}
            yield found
    yield found | {"peak_bytes": max(peaks), "max_resident_bytes": _max_resident_bytes()}


def tell(load: Callable[[PointSettings], Runner]) -> None:
    """The main function of a process: settings from the command line, JSON lines to stdout."""
    settings = PointSettings(**json.loads(sys.argv[1]))
    threading.Thread(target=_end_with_the_parent, daemon=True).start()
    for found in measure(load, settings):
        sys.stdout.write(json.dumps(found) + "\n")
        sys.stdout.flush()


def _end_with_the_parent() -> None:
    """Whoever started this process holds its stdin: at its end there is nobody left to measure for."""
    while os.read(0, 1):  # not through sys.stdin, whose lock this thread would keep when the process ends
        pass
    os._exit(1)


def settings_line(settings: PointSettings) -> str:
    """The command line argument that `tell` reads."""
    return json.dumps(asdict(settings))


def _max_resident_bytes() -> int:
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
