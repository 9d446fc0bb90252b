"""A point measured in a process of its own, which may die without taking the series with it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from benchmarks.memory import PlannedPoint
from benchmarks.peer_point import PEERS
from benchmarks.point import settings_line


def measure_point(point: PlannedPoint, progress: Callable[[str], None] = lambda phase: None) -> dict[str, Any]:
    """Measures `point` in a process of its own, which is ended whatever happens; `progress` is told its phases.

    A process that fails or is killed gives a point with `error`, and what it had told before.
    """
    module = "peer_point" if point.settings.layout in PEERS else "memory_point"
    command = [sys.executable, "-m", f"benchmarks.{module}", settings_line(point.settings)]
    found: dict[str, Any] = {**point.facts, "active_bytes": None, "peak_bytes": None}
    phase = "loading and filling"
    progress(phase)
    with tempfile.TemporaryFile() as errors:
        child = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,  # ends with this process, however that ends, and the child with it
            stdout=subprocess.PIPE,
            stderr=errors,
            env=child_environment(os.environ),
            text=True,
        )
        try:
            assert child.stdout is not None
            for line in child.stdout:
                with suppress(ValueError):  # a peer may print what it likes
                    told = json.loads(line)
                    found |= told if isinstance(told, dict) else {}
                phase = "prefilling" if "decode_s" in found else "decoding"
                progress(phase)
            code = child.wait()
        finally:
            child.kill()
            child.wait()
        errors.seek(0)
        return found if code == 0 else {**found, "peak_bytes": None, "error": f"{_why(code, errors.read())} ({phase})"}


def child_environment(environment: Mapping[str, str]) -> dict[str, str]:
    """`environment`, in which a child finds this package as this process did."""
    paths = [str(Path(__file__).parents[1]), environment.get("PYTHONPATH", "")]
    return {**environment, "PYTHONPATH": os.pathsep.join(filter(None, paths))}


def _why(code: int, told: bytes) -> str:
    if code == -signal.SIGKILL:
        return "killed: out of memory, most likely"
    lines = [line for line in told.decode("utf-8", "replace").splitlines() if line.strip()]
    return lines[-1].strip() if lines else f"ended with {code}"
