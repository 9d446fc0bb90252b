"""What a conversion takes: `python -m benchmarks.conversion SOURCE SCRATCH [--peer] [--runs N] ...`.

Converts SOURCE to 4 bit in groups of 64 with `gemma-mlx convert` and, with `--peer`, in turns with it, with
`mlx_vlm.convert`, each in a process of its own; which of them is first changes from run to run. Counted are the bytes
written, the most memory resident at once, processor time and time; the folders are made in SCRATCH and removed.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import sys
import time
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from benchmarks.machine import where_measured
from gemma_mlx.errors import GemmaError, UsageError
from gemma_mlx.memory import readable
from gemma_mlx.replace_file import replacing

OWN, PEER = "gemma-mlx", "mlx-vlm"
Run = dict[str, Any]


def command(converter: str, source: Path, destination: Path, calibration: Path | None = None) -> list[str]:
    """What converts `source` to the new folder `destination`."""
    if converter == OWN:
        feedback = [] if calibration is None else ["--calibration", str(calibration)]
        return [sys.executable, "-m", "gemma_mlx", "convert", str(source), str(destination), "-q", *feedback]
    paths = ["--hf-path", str(source), "--mlx-path", str(destination)]
    return [sys.executable, "-m", "mlx_vlm", "convert", *paths, "-q", "--q-bits", "4", "--q-group-size", "64"]


def measure(converter: str, source: Path, scratch: Path, calibration: Path | None = None) -> Run:
    """One conversion. Raises UsageError where it ends with an error; what it printed is on stderr."""
    destination = scratch / f"converted-by-{converter}"
    shutil.rmtree(destination, ignore_errors=True)
    line = command(converter, source, destination, calibration)
    started = time.perf_counter()
    # GEMMA_MLX_HOME: what is only measured shall not become the model that is used when none is named.
    process = os.posix_spawn(
        line[0], line, {**os.environ, "GEMMA_MLX_HOME": str(scratch)}, file_actions=[(os.POSIX_SPAWN_DUP2, 2, 1)]
    )
    _, status, usage = os.wait4(process, 0)
    seconds = time.perf_counter() - started
    try:
        if status:
            raise UsageError(f"{converter} could not convert {source}; see above")
        return {
            "converter": converter,
            "bytes_written": sum(file.stat().st_size for file in destination.rglob("*") if file.is_file()),
            "peak_resident_bytes": usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024),
            "processor_s": usage.ru_utime + usage.ru_stime,
            "s": seconds,
        }
    finally:
        shutil.rmtree(destination, ignore_errors=True)


def in_turns(converters: list[str], runs: int) -> list[str]:
    """So many runs of each. They take turns at being first, for who comes second finds the machine otherwise."""
    return [name for run in range(runs) for name in (converters if run % 2 == 0 else converters[::-1])]


def table(runs: list[Run]) -> str:
    """Of each converter the medians, in Markdown."""
    lines = ["| converter | written | peak resident | processor time | time |", "|---|---:|---:|---:|---:|"]
    for converter in dict.fromkeys(run["converter"] for run in runs):
        own = [run for run in runs if run["converter"] == converter]
        middle = {name: statistics.median(run[name] for run in own) for name in own[0] if name != "converter"}
        written, peak = (readable(int(middle[name])) for name in ("bytes_written", "peak_resident_bytes"))
        lines.append(f"| {converter} | {written} | {peak} | {middle['processor_s']:.0f} s | {middle['s']:.0f} s |")
    return "\n".join(lines)


def main(arguments: list[str] | None = None) -> int:
    """Measures and prints what the command line asks for; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.conversion", description=__doc__)
    parser.add_argument("source", type=Path, metavar="SOURCE", help="folder in the released format")
    parser.add_argument("scratch", type=Path, metavar="SCRATCH", help="folder for what is written")
    parser.add_argument("--peer", action="store_true", help="also with mlx_vlm.convert, in turns")
    parser.add_argument("--runs", type=int, default=1, metavar="N", help="so often each")
    parser.add_argument(
        "--calibration", type=Path, metavar="FILE", help="as the flag of gemma-mlx convert; no peer has it"
    )
    parser.add_argument("--output", type=Path, metavar="FILE", help="JSON file to write")
    asked = parser.parse_args(arguments)
    try:
        if asked.peer and find_spec("mlx_vlm") is None:
            raise UsageError("mlx-vlm is not installed here; install it with: pip install mlx-vlm")
        if asked.peer and asked.calibration is not None:
            raise UsageError("--calibration has no effect on mlx-vlm; leave out --peer")
        if asked.runs < 1:
            raise UsageError(f"--runs is {asked.runs}, it must be at least 1")
        asked.scratch.mkdir(parents=True, exist_ok=True)
        names = in_turns([OWN, PEER] if asked.peer else [OWN], asked.runs)
        runs = [measure(name, asked.source, asked.scratch, asked.calibration) for name in names]
    except GemmaError as error:
        sys.stderr.write(f"{error}\n")
        return error.exit_code
    except KeyboardInterrupt:
        return 130
    peers = {"mlx_vlm_version": metadata.version("mlx-vlm")} if asked.peer else {}
    report = {"benchmark": "conversion", "model": asked.source.name, **where_measured(), **peers, "runs": runs}
    if asked.output:
        with replacing(asked.output) as file:
            file.write((json.dumps(report, indent=2) + "\n").encode())
    sys.stdout.write(table(runs) + "\n" + json.dumps(report) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
