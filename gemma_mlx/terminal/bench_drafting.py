"""The running of `gemma-mlx bench drafting`: point after point, and what is shown of them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from gemma_mlx.errors import UsageError
from gemma_mlx.terminal.bench_report import aligned, finish, keep
from gemma_mlx.terminal.loading import MINIATURE_NOTE
from gemma_mlx.terminal.options import DraftMode
from gemma_mlx.terminal.output import Output

if TYPE_CHECKING:
    from benchmarks.drafting import Comparison
    from benchmarks.report import Report


def compare(
    model: str | None,
    drafter: str | None,
    adapter: str | None,
    prompts: Path | None,
    draft: DraftMode,
    depths: list[int],
    max_tokens: int,
    runs: int,
) -> Comparison:
    """What the flags ask for. UsageError for what cannot be measured; no weight is read for that."""
    from benchmarks.drafting import Comparison
    from benchmarks.prompts import default_prompts, miniature_prompts, read_prompts
    from gemma_mlx.config import read_config
    from gemma_mlx.home import find_adapter, find_drafter, find_model

    folder = find_model(model)
    if draft == "lookup" and drafter is not None:
        raise UsageError("--drafter has no effect with --draft lookup; leave one of them out")
    found = None if draft == "lookup" else find_drafter(folder, drafter)
    if draft == "mtp" and found is None:
        raise UsageError(f"--draft mtp: {folder.name} has no drafter; name one with --drafter, or use --draft lookup")
    if prompts is not None:
        asked = read_prompts(prompts)
    else:
        asked = miniature_prompts() if read_config(folder).is_miniature else default_prompts()
    adapter_folder = find_adapter(adapter) if adapter is not None else None
    return Comparison(folder, found, asked, draft, depths, max_tokens, runs, adapter_folder)


class DraftingRun:
    """The measuring: everything is checked when this is made, so that nothing fails after an hour."""

    def __init__(
        self,
        comparison: Comparison,
        dtype: str | None,
        kv_bits: int | None,
        output: Output,
        folder: Path | None,
        picture: Path | None,
    ) -> None:
        from benchmarks.drafting import FORM, Bench, comparison_facts
        from benchmarks.picture import require_matplotlib
        from benchmarks.point import DTYPES
        from benchmarks.report import continued, new_report
        from gemma_mlx.loader import load

        if picture is not None:
            require_matplotlib()
        self._comparison, self._output = comparison, output
        output.status(f"loading {comparison.folder.name} ...")
        gemma = load(
            comparison.folder,
            kv_bits=kv_bits,
            drafter=comparison.drafter,
            draft=comparison.draft,
            adapter=comparison.adapter,
            dtype=DTYPES[dtype] if dtype else None,
        )
        output.clear_status()
        self._file = folder / FORM.file if folder else None
        self._bench = Bench(comparison, gemma)
        facts = comparison_facts(comparison, gemma)
        self._report = continued(FORM, self._file, facts) if self._file else new_report(FORM, facts)
        keep(self._report, self._file)
        if gemma.miniature:
            output.say(MINIATURE_NOTE.format(name=gemma.name).replace("answers", "is measured"))

    def __call__(self) -> Report:
        """The report: whole, or with `interrupted` and what there is."""
        points = self._comparison.point_facts()
        try:
            for kind in self._comparison.kinds:
                self._measure_costs(kind)
            for count, facts in enumerate(points, start=1):
                self._measure(facts, f"{count} of {len(points)}")
        except KeyboardInterrupt:
            self._output.say("interrupted: what is shown was measured before")
            return {**self._report, "interrupted": True}
        return self._report

    def _measure_costs(self, kind: str) -> None:
        if all(costs["kind"] != kind for costs in self._report["costs"]):
            self._output.status(f"{kind}: measuring passes over 1 to 9 rows ...")
            self._report["costs"].append(self._bench.costs(kind))
            keep(self._report, self._file)

    def _measure(self, facts: dict[str, Any], place: str) -> None:
        from benchmarks.drafting import FORM
        from benchmarks.report import finished, put

        name = f"{place}: {facts['kind']}, {_depth(facts)}"
        runs = self._comparison.runs
        before = finished(FORM, self._report, facts)
        found = before or self._bench.point(facts, lambda run: self._output.status(f"{name}: run {run} of {runs} ..."))
        put(FORM, self._report, found)
        keep(self._report, self._file)
        came = f"{_number(found['ratio'], 'x')} the speed, {_number(found['tokens_per_pass'])} tokens a pass"
        self._output.note(f"{name}: {came}{', measured before' if before else ''}")


def finish_drafting(report: Report, output: Output, picture: Path | None, *, show_table: bool) -> None:
    """Table, picture, and the JSON line."""
    from benchmarks.drafting_plot import draw

    finish(report, output, _table(report) if show_table else [], picture, draw)


def _table(report: Report) -> list[str]:
    from benchmarks.report import adapted

    rows = [
        ["kind", "drafts", "tokens/s", "without", "ratio", "from", "to", "accepted", "tokens a pass", "same answers"]
    ]
    for point in report["points"]:
        ratios = [_number(point[key], "x") for key in ("ratio", "ratio_min", "ratio_max")]
        speeds = [_number(point[key]) for key in ("drafted_tps", "plain_tps")]
        same = "all" if point["identical"] else f"all but {point['differing_answers']} of {point['answers']}"
        counts = [_share(point["acceptance"]), _number(point["tokens_per_pass"]), same]
        rows.append([point["kind"], _depth(point), *speeds, *ratios, *counts])
    about = (
        f"{report['model']}{adapted(report)} in {report['dtype']} on {report['machine']} ({report['device']}), MLX "
        f"{report['mlx_version']}; greedy, at most {report['max_tokens']} tokens, without the prompt's time; "
        f"medians of {report['runs']} runs"
    )
    weights = f"the drafter takes {report['drafter_bytes'] / report['weights_bytes']:.1%} of the model's bytes"
    told = [weights] if report["drafter"] else ["no drafter: drafts are looked up in what was said before"]
    return [about, *told, *aligned(rows), *_cost_table(report), *_choices_table(report)]


def _cost_table(report: Report) -> list[str]:
    """Milliseconds of a draft step and of passes by their rows."""
    if not report["costs"]:
        return []
    rows = [["ms after a prompt", "tokens", "draft step", *(f"{n} rows" if n > 1 else "1 row" for n in range(1, 10))]]
    for costs in report["costs"]:
        times = [costs["draft_s"], *costs["verify_s"]]
        found = ["-" if seconds is None else f"{1000 * seconds:.2f}" for seconds in times]
        rows.append([costs["kind"], f"{costs['prompt_tokens']:,}", *found])
    return aligned(rows)


def _choices_table(report: Report) -> list[str]:
    """What the controller chose: on average, in the first run and in the last."""
    chosen = [point for point in report["points"] if point["depth"] is None]
    if not chosen:
        return []
    rows = [
        ["chosen", "mean depth", "first run", "last run", "rounds without drafts", "rounds to probe", "first token"]
    ]
    for point in chosen:
        by_run = point["mean_depth_by_run"]
        depths = [_number(depth) for depth in (point["mean_depth"], by_run[0], by_run[-1])]
        first = f"{_ms(point['drafted_first_token_s'])} ({_ms(point['plain_first_token_s'])} without drafts)"
        shares = [_share(point["undrafted_share"]), _share(point["probing_share"])]
        rows.append([point["kind"], *depths, *shares, first])
    return aligned(rows)


def _depth(point: dict[str, Any]) -> str:
    if point["depth"] is None:
        return f"{point['mode']}: chosen"
    return f"{point['mode']}: {point['depth']}"


def _number(value: float | None, unit: str = "") -> str:
    return "-" if value is None else f"{value:.2f}{unit}"


def _share(value: float | None) -> str:
    return "-" if value is None else f"{value:.1%}"


def _ms(seconds: float) -> str:
    return f"{1000 * seconds:.0f} ms"
