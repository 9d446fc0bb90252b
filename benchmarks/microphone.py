"""The microphone at real cadence, with a virtual device whose samples are numbered:

    python -m benchmarks.microphone [--seconds 60]

Needs pulseaudio with its utilities, PortAudio and ALSA's pulse plugin. Samples of which each tells its own number are
played into a null sink at the pace of a device, and heard from its monitor through sounddevice by what /mic and
`transcribe --live` listen with. Twice: alone, and beside a thread that computes in Python all the while, as the screen
of a chat may. Told are the samples lost, repeated and changed, and how long the callback took beside the length of a
block: in all, with what it waited for the processor and the interpreter, and of the processor's time alone. The last
line is all of it in JSON.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from typing import Any

from benchmarks.child import child_environment
from benchmarks.machine import where_measured
from benchmarks.virtual_microphone import VirtualMicrophone, counting
from gemma_mlx.errors import GemmaError
from gemma_mlx.inputs.sound_stream import SAMPLE_RATE_HZ

_LONGER_S = 20.0
"""The player begins before the listener and must not end before it."""


def measure(seconds: float, busy: bool) -> dict[str, Any]:
    """Hears `seconds` of numbered samples in a process of its own. GemmaError where that fails."""
    command = [sys.executable, "-m", "benchmarks.microphone_point", str(seconds), *(["--busy"] if busy else [])]
    with VirtualMicrophone() as microphone:
        player = microphone.play(counting(round((seconds + _LONGER_S) * SAMPLE_RATE_HZ)))
        try:
            environment = child_environment(microphone.environment)
            listener = subprocess.run(command, capture_output=True, env=environment, text=True, check=False)
        finally:
            player.kill()
            player.wait()
    if listener.returncode:
        raise GemmaError(f"the listener failed: {(listener.stderr.splitlines() or ['it was killed'])[-1]}")
    found: dict[str, Any] = json.loads(listener.stdout)
    return {"busy": busy, "load_average": os.getloadavg()[0], **found}


def _line(point: dict[str, Any]) -> str:
    lost = "  ".join(f"{kind} {point[f'{kind}_samples']}" for kind in ("lost", "repeated", "silent", "changed"))
    return (
        f"{'busy' if point['busy'] else 'alone':5}  {point['blocks']} blocks of {point['block_ms']:.0f} ms, "
        f"{point['numbered_samples']:,} samples: {lost}; load {point['load_average']:.1f}\n"
        f"       callback {point['callback_median_ms']:.3f} ms, 99 of 100 {point['callback_99_ms']:.3f}, longest "
        f"{point['callback_max_ms']:.3f} (processor {point['callback_cpu_max_ms']:.3f}); longest gap between two "
        f"{point['gap_max_ms']:.0f} ms; overflows {point['overflows']}\n"
    )


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=60)
    arguments = parser.parse_args()
    points = []
    for busy in (False, True):
        try:
            point = measure(arguments.seconds, busy)
        except GemmaError as error:
            sys.exit(str(error))
        points.append(point)
        sys.stderr.write(_line(point))
    report = {"benchmark": "microphone", **where_measured(), "seconds": arguments.seconds}
    sys.stdout.write(json.dumps({**report, "points": points}) + "\n")


if __name__ == "__main__":
    main()
