"""The report of a benchmark: one JSON object, kept on disk after every point and read back."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gemma_mlx.errors import UsageError
from gemma_mlx.replace_file import replacing

Report = dict[str, Any]

_TOLD = {"model", "miniature", "machine", "device", "dtype", "kv_bits", "mlx_version", "gemma_mlx_version", "points"}
_FREE = ("machine", "python_version", "gemma_mlx_version")
"""What may differ between runs whose points stand in one report: the machine may have got a new name."""
_SILENT = {"adapter_digest": ""}
"""What a report means that does not tell of it, because it was written before there was anything to tell."""


@dataclass(frozen=True)
class Form:
    """What the reports of one benchmark look like."""

    name: str
    """`gemma-mlx bench NAME`; its report is NAME.json."""
    place: tuple[str, ...]
    """The keys that tell points apart."""
    drawn: frozenset[str]
    """What the picture needs beside the points, and beside what every report tells."""
    sorted_by: str | None = None
    """The key that points are sorted by; None: they stand as they were measured."""
    lists: tuple[str, ...] = ("points",)
    """What is measured, as lists: empty in a new report."""
    replanned: tuple[str, ...] = ()
    """Keys of a point that were planned and not measured: they may change, and the point stays what it is."""

    @property
    def file(self) -> str:
        return f"{self.name}.json"


def adapted(report: Report) -> str:
    """What stands behind the model's name where it was measured with an adapter; else nothing."""
    return f" with the adapter {report['adapter']}" if report.get("adapter") else ""


def read_report(form: Form, file: Path) -> Report:
    """The report in `file`. Raises UsageError where there is none of that form."""
    hint = f"name a {form.file} of bench {form.name}"
    try:
        report = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise UsageError(f"cannot read a report from {str(file)!r} ({error}); {hint}") from None
    whole = isinstance(report, dict) and report.keys() >= _TOLD | form.drawn and isinstance(report["points"], list)
    if not whole or not all(isinstance(point, dict) and point.keys() >= {*form.place} for point in report["points"]):
        raise UsageError(f"{str(file)!r} is no report of a {form.name} benchmark; {hint}")
    return dict(report)


def new_report(form: Form, facts: Report) -> Report:
    """A report of `facts` with nothing measured yet."""
    return {**facts, **{name: [] for name in form.lists}}


def continued(form: Form, file: Path, facts: Report) -> Report:
    """The report in `file`, to go on with, or a new one of `facts` where there is none.

    Raises UsageError where the one that is there was measured with other settings: nothing is overwritten.
    """
    if not file.exists():
        return new_report(form, facts)
    report = read_report(form, file)
    for key, value in facts.items():
        before = report.get(key, _SILENT.get(key))
        if key not in _FREE and before != value:
            raise UsageError(
                f"{str(file)!r} was measured with {key} {before!r}, now it is {value!r}; name another --output"
            )
    return {**new_report(form, facts), **report, **facts}


def finished(form: Form, report: Report, facts: Report) -> Report | None:
    """The point of `report` that was measured without error as `facts` want it, with what is planned now; or None.

    A plan that has become another one does not change what was measured, unless it makes the run another one.
    """
    wanted = {key: value for key, value in facts.items() if key not in form.replanned}
    for point in report["points"]:
        if "error" not in point and all(point.get(key) == value for key, value in wanted.items()):
            return {**point, **facts}
    return None


def put(form: Form, report: Report, point: Report) -> None:
    """Puts `point` into `report`, instead of an older one of its place."""
    others = [other for other in report["points"] if any(other[key] != point[key] for key in form.place)]
    report["points"] = [*others, point]
    if form.sorted_by:
        report["points"].sort(key=lambda one: one[form.sorted_by])


def write_report(report: Report, file: Path) -> None:
    """`file` holds `report` afterwards, or what it held before."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with replacing(file) as stream:
        stream.write((json.dumps(report, indent=1) + "\n").encode())
