"""Listens to a `VirtualMicrophone` into which samples of `counting` are being played, in a process of its own:

    python -m benchmarks.microphone_point SECONDS [--busy]

One JSON line tells what it heard and how long the callback took. With --busy, another thread computes in Python all the
while.
"""

from __future__ import annotations

import argparse
import json
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.virtual_microphone import numbers
from gemma_mlx.terminal.capture.microphone import BLOCK_S, microphone_blocks, sound_module


class Watch:
    """Times each call of the callbacks of all input streams opened from now on."""

    def __init__(self) -> None:
        self.begun_ns: list[int] = []
        self.took_ns: list[int] = []
        self.cpu_ns: list[int] = []
        self.overflows = 0
        sounddevice: Any = sound_module()
        open_stream = sounddevice.InputStream
        sounddevice.InputStream = lambda *, callback, **options: open_stream(callback=self._timed(callback), **options)

    def _timed(self, callback: Callable[..., None]) -> Callable[..., None]:
        def timed(samples: Any, frames: int, times: Any, status: Any) -> None:
            begun_ns, cpu_ns = time.perf_counter_ns(), time.thread_time_ns()
            callback(samples, frames, times, status)
            self.cpu_ns.append(time.thread_time_ns() - cpu_ns)
            self.took_ns.append(time.perf_counter_ns() - begun_ns)
            self.begun_ns.append(begun_ns)
            self.overflows += bool(status)

        return timed

    def figures(self) -> dict[str, Any]:
        took_ms = np.array(self.took_ns) / 1e6
        gaps_ms = np.diff(self.begun_ns) / 1e6
        return {
            "blocks": len(took_ms),
            "block_ms": BLOCK_S * 1e3,
            "callback_median_ms": float(np.median(took_ms)),
            "callback_99_ms": float(np.quantile(took_ms, 0.99)),
            "callback_max_ms": float(took_ms.max()),
            "callback_cpu_max_ms": max(self.cpu_ns) / 1e6,
            "gap_median_ms": float(np.median(gaps_ms)),
            "gap_max_ms": float(gaps_ms.max()),
            "overflows": self.overflows,
        }


def continuity(samples: NDArray[np.float32]) -> dict[str, int]:
    """What became of samples of `counting` between the first and the last that was heard.

    `lost_samples` never came; `repeated_samples` came again; `silent_samples` are zeros amid the others, which a player
    leaves that was late; `changed_samples` are no number at all.
    """
    heard = numbers(samples)
    places = np.flatnonzero(heard > 0)
    amid = heard[places[0] : places[-1] + 1] if len(places) else heard[:0]
    counted = amid[amid > 0]
    known = np.unique(counted)
    return {
        "numbered_samples": len(counted),
        "lost_samples": int(np.maximum(np.diff(known) - 1, 0).sum()),
        "repeated_samples": len(counted) - len(known),
        "silent_samples": int((amid == 0).sum()),
        "changed_samples": int((heard < 0).sum()),
    }


def main() -> None:
    """The process of one point."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("seconds", type=float)
    parser.add_argument("--busy", action="store_true")
    arguments = parser.parse_args()
    watch = Watch()
    if arguments.busy:
        threading.Thread(target=_compute, daemon=True).start()
    enough = round(arguments.seconds / BLOCK_S)
    heard: list[NDArray[np.float32]] = []
    heard.extend(microphone_blocks(lambda: len(heard) >= enough))
    found = {**watch.figures(), **continuity(np.concatenate(heard))}
    sys.stdout.write(json.dumps(found) + "\n")


def _compute() -> None:
    while True:
        sum(number * number for number in range(1000))


if __name__ == "__main__":
    main()
