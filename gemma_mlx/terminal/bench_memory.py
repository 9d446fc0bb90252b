"""The running of `gemma-mlx bench memory`: point after point, and what is shown of them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from gemma_mlx.errors import UsageError
from gemma_mlx.terminal.bench_report import aligned, finish, keep
from gemma_mlx.terminal.loading import MINIATURE_NOTE
from gemma_mlx.terminal.output import Output

if TYPE_CHECKING:
    from benchmarks.memory import PlannedPoint, Series
    from benchmarks.report import Report


class MemoryRun:
    """The measuring: everything is checked when this is made, so that nothing fails after an hour."""

    def __init__(
        self, series: Series, output: Output, folder: Path | None, picture: Path | None, depths: list[float]
    ) -> None:
        from benchmarks.memory import FORM, plan_series, series_facts
        from benchmarks.picture import require_matplotlib
        from benchmarks.report import continued, new_report

        if picture is not None:
            require_matplotlib()
        self._series, self._output, self._depths = series, output, depths
        self._points = plan_series(series)
        self._file = folder / FORM.file if folder else None
        self._contexts = sorted({point.settings.context_tokens for point in self._points})
        if depths:
            self._check_needle()
        facts = series_facts(series, self._points)
        self._report = continued(FORM, self._file, facts) if self._file else new_report(FORM, facts)
        keep(self._report, self._file)
        if facts["miniature"]:
            output.say(MINIATURE_NOTE.format(name=facts["model"]).replace("answers", "is measured"))

    def __call__(self) -> Report:
        """The report: whole, or with `interrupted` and what there is."""
        try:
            for count, point in enumerate(self._points, start=1):
                self._measure(point, f"{count} of {len(self._points)}")
            if self._depths:
                self._search()
        except KeyboardInterrupt:
            self._output.say("interrupted: what is shown was measured before")
            return {**self._report, "interrupted": True}
        return self._report

    def _measure(self, point: PlannedPoint, place: str) -> None:
        from benchmarks.child import measure_point
        from benchmarks.memory import FORM
        from benchmarks.report import finished, put

        name = f"{place}: {point.settings.context_tokens:,} tokens, {point.settings.layout}"
        before = finished(FORM, self._report, point.facts)
        found = before or measure_point(point, lambda phase: self._output.status(f"{name}: {phase} ..."))
        put(FORM, self._report, found)
        keep(self._report, self._file)
        self._output.note(f"{name}: {_outcome(found)}{', measured before' if before else ''}")

    def _check_needle(self) -> None:
        from benchmarks.needle import shortest_context
        from gemma_mlx.inputs.prompt import PromptBuilder

        needed = shortest_context(PromptBuilder.from_folder(self._series.folder))
        if self._contexts[0] < needed:
            raise UsageError(f"--needle needs contexts of at least {needed:,} tokens, not {self._contexts[0]:,}")

    def _search(self) -> None:
        from dataclasses import asdict

        from benchmarks.memory import SEED
        from benchmarks.needle import search
        from benchmarks.point import DTYPES
        from gemma_mlx.loader import load

        self._output.status("loading for the needle ...")
        dtype = DTYPES[self._points[0].settings.dtype]
        adapter = self._series.adapter.folder if self._series.adapter else None
        gemma = load(self._series.folder, dtype=dtype, kv_bits=self._series.kv_bits, adapter=adapter)
        self._output.clear_status()
        self._report["needle"] = []
        for cell in search(gemma, self._contexts, self._depths, SEED):
            self._report["needle"].append(asdict(cell))
            keep(self._report, self._file)
            came = cell.error or f"{'found' if cell.found else 'not found'} in {cell.time_s:.1f} s"
            self._output.note(f"needle at {cell.depth:g} of {cell.context_tokens:,} tokens: {came}")


def finish_memory(report: Report, output: Output, picture: Path | None, *, show_table: bool) -> None:
    """Table, picture, and the JSON line."""
    from benchmarks.memory_plot import draw

    finish(report, output, [*_table(report), *_needle_table(report)] if show_table else [], picture, draw)


def _outcome(point: dict[str, Any]) -> str:
    if "error" in point:
        return f"failed: {point['error']}"
    return f"{_gb(point['active_bytes'])} GB held, peak {_gb(point['peak_bytes'])} GB"


def _table(report: Report) -> list[str]:
    """The points, a line each, in GB of 10^9 bytes."""
    from benchmarks.report import adapted

    rows = [["context", "layout", "planned", "held", "decode peak", "prefill peak", "of plan"]]
    for point in report["points"]:
        planned, peak = point.get("planned_bytes"), point.get("peak_bytes")
        keys = ("planned_bytes", "active_bytes", "decode_peak_bytes", "prefill_peak_bytes")
        share = f"{peak / planned:.1%}" if planned and peak else "failed" if "error" in point else "-"
        figures = [_gb(point.get(key)) for key in keys]
        rows.append(
            [f"{point['context_tokens']:,}", point["layout"], *figures, "failed" if "error" in point else share]
        )
    about = (
        f"{report['model']}{adapted(report)} in {report['dtype']} on {report['machine']} ({report['device']}), MLX "
        f"{report['mlx_version']}; GB of 10^9 bytes; caches filled with random rows"
    )
    return [about, *aligned(rows)]


def _needle_table(report: Report) -> list[str]:
    cells = report.get("needle") or []
    depths = sorted({cell["depth"] for cell in cells})
    rows = [["needle at", *(f"{depth:g}" for depth in depths)]]
    for context in sorted({cell["context_tokens"] for cell in cells}):
        found = {cell["depth"]: cell["found"] for cell in cells if cell["context_tokens"] == context}
        rows.append(
            [f"{context:,}", *(("yes" if found[depth] else "no") if depth in found else "-" for depth in depths)]
        )
    toy = ["the miniature is a toy: that it does not find the number says nothing about Gemma 4 12B"]
    return [*aligned(rows), *(toy if report["miniature"] else [])] if cells else []


def _gb(count_bytes: int | None) -> str:
    if count_bytes is None:
        return "-"
    return f"{count_bytes / 1e9:.2f}" if count_bytes >= 1e9 else f"{count_bytes / 1e9:.4f}"
