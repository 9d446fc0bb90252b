"""The running of `gemma-mlx bench quality`: one model after the other, and what is shown of them."""

from __future__ import annotations

import tempfile
from contextlib import ExitStack, closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gemma_mlx.errors import GemmaError, UsageError
from gemma_mlx.terminal.bench_report import aligned, finish, keep
from gemma_mlx.terminal.loading import MINIATURE_NOTE
from gemma_mlx.terminal.output import Output

if TYPE_CHECKING:
    from benchmarks.prompts import Prompt
    from benchmarks.quality import Comparison
    from benchmarks.quality_likelihood import Likelihood
    from benchmarks.quality_sets import EvalSet
    from benchmarks.report import Report
    from gemma_mlx.gemma import Gemma

_BUDGETS = (70, 140, 280, 560, 1120)
Point = dict[str, Any]


@dataclass(frozen=True)
class Asked:
    """What the flags say, unread."""

    model: str | None
    adapter: str | None
    folders: list[Path]
    prompts: Path | None
    sets: list[Path]
    budgets: list[int]
    hypotheses: list[str]
    written: bool
    max_tokens: int


def comparison_of(asked: Asked) -> Comparison:
    """What the flags ask for. UsageError for what cannot be measured; no weight is read for that."""
    from benchmarks.error_rates import require_rapidfuzz
    from benchmarks.quality import Comparison
    from benchmarks.quality_sets import read_hypotheses, read_sets
    from gemma_mlx.config import read_config
    from gemma_mlx.home import find_model
    from gemma_mlx.inputs.prompt import image_budget
    from gemma_mlx.loader import runnable_adapter

    folders = [find_model(folder) for folder in (asked.model, *asked.folders)]
    names = [folder.absolute().name for folder in folders]
    if twice := [name for name in names if names.count(name) > 1]:
        raise UsageError(f"two folders are called {twice[0]!r}, and could not be told apart; rename one or link to it")
    if not (asked.folders or asked.prompts or asked.sets):
        raise UsageError("there is nothing to compare: name FOLDERs beside --model, --prompts FILE or --set DIR")
    if asked.sets:
        require_rapidfuzz()
    sets = read_sets(asked.sets)
    _check_set_flags(asked, sets)
    hypotheses = [read_hypotheses(named, sets) for named in asked.hypotheses]
    shown = [*names, *(one.name for one in hypotheses)]
    if twice := [name for name in shown if shown.count(name) > 1]:
        raise UsageError(f"--hypotheses: {twice[0]!r} is the name of a folder or of others; take another")
    budgets = asked.budgets or [image_budget(folders[0] / "processor_config.json")]
    comparison = Comparison(
        folders=dict(zip(names, folders, strict=True)),
        prompts=_prompts(asked, folders[0]),
        sets=sets,
        budgets=budgets,
        hypotheses=hypotheses,
        max_tokens=asked.max_tokens,
        written=asked.written,
    )
    comparison.check()
    fitting = [runnable_adapter(asked.adapter, read_config(folder)) for folder in folders]
    return replace(comparison, adapter=fitting[0])


def _check_set_flags(asked: Asked, sets: list[EvalSet]) -> None:
    """UsageError for a flag that would do nothing with these sets."""
    kinds = {one.kind for one in sets}
    if asked.budgets and "image" not in kinds:
        raise UsageError("--budgets has no effect without a set of pictures; add --set DIR")
    for budget in asked.budgets:
        if budget not in _BUDGETS:
            raise UsageError(f"--budgets {budget}: a picture takes at most {', '.join(map(str, _BUDGETS))} tokens")
    if asked.written and "audio" not in kinds:
        raise UsageError("--as-written has no effect without a set of sounds; add --set DIR")
    if asked.hypotheses and not sets:
        raise UsageError("--hypotheses has no effect without a set; add --set DIR")


def _prompts(asked: Asked, reference: Path) -> list[Prompt]:
    """Those of the file; else, where folders are compared, those that come along."""
    from benchmarks.prompts import default_prompts, miniature_prompts, read_prompts
    from gemma_mlx.config import read_config

    if asked.prompts is not None:
        return read_prompts(asked.prompts)
    if not asked.folders:
        return []
    return miniature_prompts() if read_config(reference).is_miniature else default_prompts()


class QualityRun:
    """The measuring: what can be checked is checked when this is made, so that little fails after an hour."""

    def __init__(
        self, comparison: Comparison, dtype: str | None, output: Output, folder: Path | None, picture: Path | None
    ) -> None:
        from benchmarks.picture import require_matplotlib
        from benchmarks.point import DTYPES
        from benchmarks.quality import FORM, comparison_facts
        from benchmarks.report import continued, new_report
        from gemma_mlx.weights import computing_dtype

        if picture is not None:
            require_matplotlib()
        self._dtype = DTYPES[dtype] if dtype else computing_dtype()
        computing = next(name for name, found in DTYPES.items() if found == self._dtype)
        facts = comparison_facts(comparison, computing)
        self._comparison, self._output, self._folder = comparison, output, folder
        self._file = folder / FORM.file if folder else None
        self._report = continued(FORM, self._file, facts) if self._file else new_report(FORM, facts)
        keep(self._report, self._file)
        if facts["miniature"]:
            output.say(MINIATURE_NOTE.format(name=facts["model"]).replace("answers", "is measured"))

    def __call__(self) -> Report:
        """The report: whole, or with `interrupted` and what there is."""
        from benchmarks.quality_likelihood import Likelihood

        likelihood = Likelihood(self._comparison)
        with ExitStack() as until_done:
            until_done.enter_context(closing(likelihood))
            answers = self._folder or Path(until_done.enter_context(tempfile.TemporaryDirectory()))
            try:
                for name in self._comparison.folders:
                    self._measure_folder(name, likelihood, answers)
            except KeyboardInterrupt:
                self._output.say("interrupted: what is shown was measured before")
                return {**self._report, "interrupted": True}
        for point in self._comparison.hypotheses_points():
            self._put(point)
        return self._report

    def _measure_folder(self, name: str, likelihood: Likelihood, answers: Path) -> None:
        """Loads the model, where anything of it is missing, and lets go of it again."""
        import mlx.core as mx

        from gemma_mlx.loader import load

        comparison = self._comparison
        missing = [facts for facts in comparison.likelihood_facts(name) if self._missing(facts)]
        if name == comparison.reference:  # others are compared with it
            missing += [facts for other in comparison.folders for facts in comparison.likelihood_facts(other)
                        if self._missing(facts)]  # fmt: skip
        sets = [(one, facts) for one, facts in comparison.set_facts(name) if self._missing(facts)]
        if not missing and not sets:
            self._output.note(f"{name}: measured before")
            return
        self._output.status(f"loading {name} ...")
        adapter = comparison.adapter.folder if comparison.adapter else None
        gemma = load(comparison.folders[name], draft="off", adapter=adapter, dtype=self._dtype)
        if missing:
            found = likelihood.measure(gemma, lambda place: self._output.status(f"{name}: {place} ..."))
            for facts in filter(self._missing, comparison.likelihood_facts(name)):
                self._put({**facts, **found[facts["name"]]})
            self._output.note(f"{name}: likelihood measured")
        for one, facts in sets:
            self._measure_set(gemma, one, facts, answers)
        del gemma
        mx.clear_cache()

    def _measure_set(self, gemma: Gemma, one: EvalSet, facts: Point, folder: Path) -> None:
        from benchmarks.quality_answers import Answers

        comparison = self._comparison
        answers = Answers.of(folder, one, facts)
        title = f"{facts['folder']}: {_set_name(facts)}"
        try:
            for count, (file, failure) in enumerate(answers.complete(gemma, comparison.max_tokens), start=1):
                if failure:
                    self._output.clear_status()
                    self._output.error(f"{title}: {failure}")
                else:
                    self._output.status(f"{title}: {count}, {file} ...")
        except OSError as error:
            raise GemmaError(f"cannot write {str(answers.file)!r}: {error.strerror}; name another --output") from None
        reference = next(
            Answers.of(folder, one, other)
            for other_set, other in comparison.set_facts(comparison.reference)
            if (other_set.name, other["budget"]) == (one.name, facts["budget"])
        )
        point = {**facts, **answers.figures(reference, spoken=comparison.spoken(one))}
        self._put(point)
        self._output.note(f"{title}: {point['texts']} of {point['files']} files answered")

    def _missing(self, facts: Point) -> bool:
        from benchmarks.quality import FORM
        from benchmarks.report import finished

        return finished(FORM, self._report, facts) is None

    def _put(self, point: Point) -> None:
        from benchmarks.quality import FORM
        from benchmarks.report import put

        put(FORM, self._report, point)
        keep(self._report, self._file)


def finish_quality(report: Report, output: Output, picture: Path | None, *, show_table: bool) -> None:
    """Table, picture, and the JSON line."""
    from benchmarks.quality_plot import draw

    finish(report, output, _tables(report) if show_table else [], picture, draw)


def _tables(report: Report) -> list[str]:
    from benchmarks.report import adapted

    about = (
        f"beside {report['model']}{adapted(report)}, in {report['dtype']} on {report['machine']} ({report['device']}), "
        f"MLX {report['mlx_version']}; greedy, at most {report['max_tokens']} tokens"
    )
    return [about, *_likelihood_table(report), *_set_table(report)]


def _likelihood_table(report: Report) -> list[str]:
    points = [point for point in report["points"] if point["part"] == "likelihood"]
    rows = [["folder", "MB", "prompts", "positions", "KL mean", "median", "p99", "max", "same top token", "perplexity",
             "answers again"]]  # fmt: skip
    for point in points:
        divergence = [f"{point[key]:.2g}" for key in ("kl_mean", "kl_median", "kl_p99", "kl_max")]
        again = f"{point['answers_again']} of {point['answers']}"
        rows.append([point["folder"], _megabytes(point), point["name"], f"{point['positions']:,}", *divergence,
                     f"{point['top1_agreement']:.2%}", f"{point['perplexity']:.4f}", again])  # fmt: skip
    return aligned(rows) if points else []


def _set_table(report: Report) -> list[str]:
    points = [point for point in report["points"] if point["part"] == "set"]
    rows = [["folder", "set", "scored", "files", "failed", "cut", "characters wrong", "words wrong", "exact",
             "as the reference", "tokens in", "out", "s a file"]]  # fmt: skip
    for point in points:
        texts = max(1, point["texts"])
        rates = [_share(point[key]) for key in ("character_error_rate", "word_error_rate")]
        counts = [str(point["files"]), str(len(point["failures"])), str(point.get("cut", "-"))]
        ran = ["-"] * 4
        if "seconds" in point:
            means = [f"{point[key] / texts:.0f}" for key in ("prompt_tokens", "generated_tokens")]
            ran = [_share(point["same_as_reference"] / texts), *means, f"{point['seconds'] / texts:.2f}"]
        exact = _share(point["exact"] / texts)
        rows.append([point["folder"], _set_name(point), point["scored"], *counts, *rates, exact, *ran])
    failed = [f"failed: {point['folder']}, {_set_name(point)}: {', '.join(point['failures'])}"
              for point in points if point["failures"]]  # fmt: skip
    return [*aligned(rows), *failed] if points else []


def _set_name(point: Point) -> str:
    return point["name"] if point["budget"] is None else f"{point['name']} at {point['budget']} tokens"


def _megabytes(point: Point) -> str:
    return f"{point['stored_bytes'] / 1e6:,.1f}"


def _share(value: float | None) -> str:
    return "-" if value is None else f"{value:.2%}"
