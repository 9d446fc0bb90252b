"""README.md is true: its commands and its code run, its table of flags is the program's."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.readme import README, RESULTS, TABLES, Block, blocks, conversion_pairs, in_readme

RUN = [block for block in blocks() if block.why_not_run is None]


@pytest.mark.parametrize("name", TABLES)
def test_tables_are_those_of_the_program_and_of_the_results(name: str) -> None:
    assert in_readme(name) == TABLES[name](), "python -m tests.readme writes it anew"


def test_the_pairs_of_conversions_are_those_that_were_measured() -> None:
    told = (RESULTS / "README.md").read_text(encoding="utf-8")
    lines = [
        f"| {first} | {own['s']:.0f} ({own['processor_s']:.0f}) | {peer['s']:.0f} ({peer['processor_s']:.0f}) |"
        for first, own, peer in conversion_pairs()
    ]
    assert "\n".join(lines) in told


def test_every_file_that_the_map_names_exists() -> None:
    cells = [line.split("|")[1] for line in README.read_text(encoding="utf-8").splitlines() if line.startswith("| `")]
    paths = [name.strip(" `") for cell in cells if "/" in cell for name in cell.split(",")]
    assert len(paths) > 10
    rooms = [README.parent, README.parent / "gemma_mlx", README.parent / "gemma_mlx/model"]
    for path in paths:
        assert any((room / path).exists() for room in rooms), path


@pytest.mark.parametrize("block", RUN, ids=[f"{block.language}-{index}" for index, block in enumerate(RUN)])
def test_a_block_runs(block: Block, tmp_path: Path) -> None:
    command = {"sh": ["bash", "-euo", "pipefail", "-c"], "python": [sys.executable, "-c"]}[block.language]
    environment = {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "GEMMA_MLX_HOME": str(tmp_path),
    }
    environment.pop("GEMMA_MLX_MODEL", None)
    done = subprocess.run(
        [*command, block.code],
        cwd=README.parent,
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip()
