"""The report of a memory series: one JSON object, kept on disk after every point and read back."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from gemma_mlx.errors import UsageError

Report = dict[str, Any]
FILE = "memory.json"
_FREE = ("machine", "python_version", "gemma_mlx_version", "points", "needle")
"""What may differ between runs whose points stand in one report: the machine may have got a new name."""

_TOLD = {"model", "miniature", "machine", "device", "dtype", "kv_bits", "mlx_version", "gemma_mlx_version"}
_DRAWN = {"mac_limits_bytes", "points"}
_OF_POINT = {"context_tokens", "layout"}


def read_report(file: Path) -> Report:
    """The report in `file`. Raises UsageError where there is none."""
    try:
        report = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise UsageError(f"cannot read a report from {str(file)!r} ({error}); name a {FILE} of bench memory") from None
    whole = isinstance(report, dict) and report.keys() >= _TOLD | _DRAWN and isinstance(report["points"], list)
    if not whole or not all(isinstance(point, dict) and point.keys() >= _OF_POINT for point in report["points"]):
        raise UsageError(f"{str(file)!r} is no report of a memory benchmark; name a {FILE} of bench memory")
    return dict(report)


def continued(file: Path, facts: Report) -> Report:
    """The report in `file`, to go on with, or a new one of `facts` where there is none.

    Raises UsageError where the one that is there was measured with other settings: nothing is overwritten.
    """
    if not file.exists():
        return {**facts, "points": [], "needle": []}
    report = read_report(file)
    for key, value in facts.items():
        if key not in _FREE and report.get(key) != value:
            raise UsageError(
                f"{str(file)!r} was measured with {key} {report.get(key)!r}, now it is {value!r}; name another --output"
            )
    return {**report, **facts}


def finished(report: Report, facts: Report) -> Report | None:
    """The point of `report` that was measured without error as `facts` want it, with what is planned now; or None.

    A plan that has become another one does not change what was measured, unless it makes the run another one.
    """
    wanted = {key: value for key, value in facts.items() if key not in ("planned_bytes", "fits")}
    for point in report["points"]:
        if "error" not in point and all(point.get(key) == value for key, value in wanted.items()):
            return {**point, **facts}
    return None


def put(report: Report, point: Report) -> None:
    """Puts `point` into `report`, in the place of an older one of its context and layout."""
    place = (point["context_tokens"], point["layout"])
    others = [other for other in report["points"] if (other["context_tokens"], other["layout"]) != place]
    report["points"] = sorted([*others, point], key=lambda one: one["context_tokens"])


def write_report(report: Report, file: Path) -> None:
    """`file` holds `report` afterwards, or what it held before."""
    file.parent.mkdir(parents=True, exist_ok=True)
    beside = file.with_name(f"{file.name}.new")
    beside.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    beside.replace(file)
