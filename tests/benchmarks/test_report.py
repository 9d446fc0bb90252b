from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from benchmarks.machine import adapter_facts
from benchmarks.memory import FORM
from benchmarks.picture import origin
from benchmarks.report import adapted, continued, finished, put, read_report, write_report
from gemma_mlx.errors import UsageError

FACTS: dict[str, Any] = {
    "benchmark": "memory",
    "model": "gemma-4bit",
    "miniature": False,
    "machine": "a Mac",
    "device": "gpu",
    "dtype": "bfloat16",
    "kv_bits": None,
    "mlx_version": "0.32.4",
    "gemma_mlx_version": "0.1.0",
    "mac_limits_bytes": {},
}
WANTED: dict[str, Any] = {
    "context_tokens": 4096,
    "layout": "shared",
    "snapshots": 1,
    "planned_bytes": 100,
    "fits": True,
}


def test_a_new_plan_keeps_what_was_measured_and_a_new_way_to_run_does_not() -> None:
    report = {**FACTS, "points": [{**WANTED, "peak_bytes": 95}]}
    assert finished(FORM, report, {**WANTED, "planned_bytes": 97}) == {**WANTED, "planned_bytes": 97, "peak_bytes": 95}
    assert finished(FORM, report, {**WANTED, "snapshots": 2}) is None
    report["points"][0]["error"] = "killed"
    assert finished(FORM, report, WANTED) is None


def test_a_point_takes_the_place_of_the_older_one_of_its_context_and_layout() -> None:
    report: dict[str, Any] = {**FACTS, "points": []}
    for context, layout, peak in ((8192, "shared", 1), (4096, "plain", 2), (8192, "plain", 3), (8192, "shared", 4)):
        put(FORM, report, {"context_tokens": context, "layout": layout, "peak_bytes": peak})
    assert [point["peak_bytes"] for point in report["points"]] == [2, 3, 4]


def test_a_report_is_gone_on_with_or_refused_and_never_overwritten(tmp_path: Path) -> None:
    file = tmp_path / "memory.json"
    report = continued(FORM, file, FACTS)
    put(FORM, report, WANTED)
    write_report(report, file)
    assert continued(FORM, file, {**FACTS, "machine": "the same Mac, renamed"})["points"] == [WANTED]
    with pytest.raises(UsageError, match="dtype 'bfloat16', now it is 'float32'"):
        continued(FORM, file, {**FACTS, "dtype": "float32"})
    assert read_report(FORM, file) == report
    assert [path.name for path in tmp_path.iterdir()] == ["memory.json"]


def test_a_report_from_before_there_were_adapters_is_of_none(tmp_path: Path) -> None:
    file = tmp_path / "memory.json"
    write_report({**FACTS, "points": []}, file)
    assert continued(FORM, file, {**FACTS, **adapter_facts(None, None)})["adapter_digest"] == ""
    with pytest.raises(UsageError, match="was measured with adapter None, now it is 'mine'; name another --output"):
        continued(FORM, file, {**FACTS, **adapter_facts(Path("mine"), "af01")})


def test_pictures_and_tables_name_the_adapter() -> None:
    report = {**FACTS, **adapter_facts(Path("some/mine"), "af01")}
    assert adapted(report) == " with the adapter mine"
    assert "bfloat16 with the adapter mine; a Mac" in origin(report)
    assert adapted(FACTS) == adapted({**FACTS, **adapter_facts(None, None)}) == ""
