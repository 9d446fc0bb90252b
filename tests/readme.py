"""What README.md repeats of the program: its blocks, and its table of flags.

`python -m tests.readme` writes the table anew from the real command line.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import typer

from gemma_mlx.terminal.cli import app

README = Path(__file__).parents[1] / "README.md"
BEGIN, END = "<!-- flags: begin -->\n", "<!-- flags: end -->\n"
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
        if hasattr(command, "commands"):
            yield from commands(command, f"{before}{name} ")
        else:
            yield before + name, command


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


def flag_table_in_readme() -> str:
    return README.read_text(encoding="utf-8").split(BEGIN)[1].split(END)[0]


if __name__ == "__main__":
    text = README.read_text(encoding="utf-8")
    before, rest = text.split(BEGIN)
    after = rest.split(END)[1]
    README.write_text(before + BEGIN + flag_table() + END + after, encoding="utf-8")
