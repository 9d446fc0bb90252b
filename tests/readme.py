"""What README.md repeats of the program: its blocks, its table of flags, and what was measured.

`python -m tests.readme` writes the tables anew, from the real command line and from `benchmarks/results/`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import typer

from benchmarks.conversion import OWN, Run
from benchmarks.conversion import table as conversions_table
from benchmarks.lattice import lattice_errors, trained_rows
from benchmarks.lattice import table as lattice_errors_table
from gemma_mlx.terminal.cli import app

README = Path(__file__).parents[1] / "README.md"
RESULTS = README.parent / "benchmarks" / "results"
_BLOCK = re.compile(
    r"(?:<!-- not run by the tests: (?P<why>[^\n]*) -->\n)?```(?P<language>\w+)\n(?P<code>.*?)```", re.S
)


@dataclass(frozen=True)
class Block:
    language: str
    code: str
    why_not_run: str | None


def blocks() -> Iterator[Block]:
    for match in _BLOCK.finditer(README.read_text(encoding="utf-8")):
        yield Block(match["language"], match["code"], match["why"])


def commands(group: Any, before: str = "") -> Iterator[tuple[str, Any]]:
    """Each verb with its command; those inside a group as `bench memory`."""
    for name, command in group.commands.items():
        if not hasattr(command, "commands") or command.invoke_without_command:
            yield before + name, command
        if hasattr(command, "commands"):
            yield from commands(command, f"{before}{name} ")


def flag_table() -> str:
    """Each flag of each verb, from the command line itself: how it is spelled, what it does, where it works."""
    verbs: dict[tuple[str, str], list[str]] = {}
    for verb, command in commands(typer.main.get_command(app)):
        for parameter in command.params:
            if parameter.param_type_name == "option":
                spelled = ", ".join(f"`{name}`" for name in parameter.opts)
                spelled += f" {parameter.metavar}" if parameter.metavar else ""
                verbs.setdefault((spelled, parameter.help), []).append(verb)
    rows = [f"| {flag} | {help_text} | {', '.join(where)} |\n" for (flag, help_text), where in verbs.items()]
    return "| flag | what it does | verbs |\n|---|---|---|\n" + "".join(rows)


def memory_table() -> str:
    """The points of the full-size benchmark: held, peak and planned of our layout, held and peak of the usual one."""
    report = json.loads((RESULTS / "full-size-decode.json").read_text(encoding="utf-8"))
    layouts: dict[int, dict[str, Any]] = {}
    for point in report["points"]:
        layouts.setdefault(point["context_tokens"], {})[point["layout"]] = point
    rows = [
        f"| {context:,} | {_gb(own['active_bytes'])} | {_gb(own['peak_bytes'])} | {_gb(own['planned_bytes'])} | "
        f"{own['planned_bytes'] / own['peak_bytes'] - 1:.1%} | {_gb(plain['active_bytes'])} | "
        f"{_gb(plain['peak_bytes'])} |\n"
        for context, (own, plain) in (
            (context, (found["shared"], found["plain"])) for context, found in sorted(layouts.items())
        )
    ]
    head = "| context | held | peak | planned | above the peak by | two tensors: held | peak |\n"
    about = f"\nMLX {report['mlx_version']}, {report['dtype']}, {report['machine']} ({report['device']}).\n"
    return head + "|---:|---:|---:|---:|---:|---:|---:|\n" + "".join(rows) + about


def _gb(count_bytes: int) -> str:
    return f"{count_bytes / 1e9:.2f}"


def lattice_table() -> str:
    """What each rule of packing makes of numbers that lie on a 4-bit lattice."""
    return lattice_errors_table(lattice_errors(trained_rows())) + "\n"


def quality_table() -> str:
    """The miniature by how it is packed: bytes, divergence over all prompts, and errors in each set."""
    report = json.loads((RESULTS / "miniature-quality" / "quality.json").read_text(encoding="utf-8"))
    folders = list(dict.fromkeys(point["folder"] for point in report["points"]))
    found = {(point["part"], point["folder"], point["name"]): point for point in report["points"]}
    sets = {"captions": "character", "readings": "character", "speech": "word", "speech-unseen": "word"}
    rows = []
    for folder in folders:
        total = found["likelihood", folder, "all"]
        points = [(found.get(("set", folder, name)), unit) for name, unit in sets.items()]
        errors = [f"{100 * point[f'{unit}_error_rate']:.1f}" if point else "" for point, unit in points]
        rows.append(
            f"| {folder} | {total['stored_bytes'] / 1e6:.1f} | {total['kl_mean']:.2g} | {total['kl_p99']:.2g} | "
            f"{total['top1_agreement']:.2%} | {total['perplexity']:.4f} | {' | '.join(errors)} |\n"
        )
    units = " | ".join(f"{name}, {unit}s" for name, unit in sets.items())
    head = f"| packed | MB | mean KL | p99 | same top token | perplexity | {units} |\n"
    total = found["likelihood", folders[0], "all"]
    files = found["set", folders[0], "captions"]["files"]
    about = (
        f"\n{total['answers']} answers with {total['positions']:,} tokens; {files} files a set, of which characters or "
        f"words wrong, in %. MLX {report['mlx_version']}, {report['dtype']}.\n"
    )
    return head + "|---|" + "---:|" * (5 + len(sets)) + "\n" + "".join(rows) + about


def conversion_table() -> str:
    """Of each converter the medians over its runs."""
    report = json.loads((RESULTS / "full-size-conversion.json").read_text(encoding="utf-8"))
    about = f"MLX {report['mlx_version']}, mlx-vlm {report['mlx_vlm_version']}, {report['machine']}."
    pairs = conversion_pairs()
    shares = ", ".join(f"{own['s'] / peer['s']:.2f}" for _, own, peer in pairs)
    firsts = " and ".join(str(number) for number, (first, *_) in enumerate(pairs, start=1) if first == OWN)
    told = f"In pairs, gemma-mlx took {shares} of mlx-vlm's time; it came first in pairs {firsts}."
    return f"{conversions_table(report['runs'])}\n\n{told}\n{about}\n"


def conversion_pairs() -> list[tuple[str, Run, Run]]:
    """Who came first, and what our converter and mlx-vlm's took, in the order in which they were measured."""
    runs = json.loads((RESULTS / "full-size-conversion.json").read_text(encoding="utf-8"))["runs"]
    pairs = zip(runs[::2], runs[1::2], strict=True)
    return [(one["converter"], *((one, two) if one["converter"] == OWN else (two, one))) for one, two in pairs]


TABLES = {
    "flags": flag_table,
    "lattice": lattice_table,
    "conversion": conversion_table,
    "memory": memory_table,
    "quality": quality_table,
}
"""What stands in README between <!-- NAME: begin --> and <!-- NAME: end -->."""


def in_readme(name: str) -> str:
    """What README says in the place of the table `name`."""
    text = README.read_text(encoding="utf-8")
    return text.split(f"<!-- {name}: begin -->\n")[1].split(f"<!-- {name}: end -->\n")[0]


if __name__ == "__main__":
    for name, table in TABLES.items():
        before, rest = README.read_text(encoding="utf-8").split(begin := f"<!-- {name}: begin -->\n")
        after = rest.split(end := f"<!-- {name}: end -->\n")[1]
        README.write_text(before + begin + table() + end + after, encoding="utf-8")
