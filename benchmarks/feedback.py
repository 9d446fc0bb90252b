"""Does error feedback lower KL at equal size? `python -m benchmarks.feedback PROMPTS RESULT`.

Converts the miniature with and without `--calibration` and says how far its answers move from those of the unpacked
one. PROMPTS has at least 88 cases of each kind (`python -m assets.training.eval_set EVAL --cases 88`). The first 64 are
judged, in eight disjoint sets, so that a difference to plain rounding has a standard error. The others make three
disjoint calibrations. A run that was stopped goes on from RESULT.
"""

from __future__ import annotations

import sys
import tempfile
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np

from benchmarks.divergence import Divergence
from benchmarks.machine import where_measured
from benchmarks.prompts import Prompt, digest, read_prompts
from benchmarks.report import Form, Report, continued, finished, put, write_report
from benchmarks.rounding import FIGURES, SETS, difference
from benchmarks.rounding_model import RoundingModel
from convert.calibrated import Calibration
from convert.calibration import Exchange, samples_of
from convert.conversion import convert_source
from convert.recipes import RECIPES
from convert.sensitivity import Sample
from convert.source import read_source
from convert.tally import Tally
from gemma_mlx.errors import GemmaError, UsageError
from gemma_mlx.home import miniature_folder

JUDGED = 64
"""Of each kind."""
CALIBRATION = 24
"""Of each kind: a third of them in each calibration."""
RECIPE_NAMES = ("4bit", "4bit-g32", "6bit", "8bit")
THIRDS = ("first", "second", "third")
FORM = Form(name="feedback", place=("recipe", "calibration"), drawn=frozenset({"prompts"}))


def calibrations(prompts: list[Prompt]) -> Iterator[tuple[str, Calibration | None]]:
    """What the miniature is rounded on: nothing; three disjoint thirds of `prompts`, each with all kinds alike; all of
    them; and what the first third is worth in smaller blocks and in part."""
    yield "none", None
    thirds = [prompts[number::3] for number in range(3)]
    for name, third in zip(THIRDS, thirds, strict=True):
        yield name, _calibration(third)
    yield "all three", _calibration(prompts)
    first = _calibration(thirds[0])
    for columns in (256, 128):
        yield f"first, blocks of {columns}", replace(first, block_columns=columns)
    yield "first, one of each kind", _calibration(list({prompt.kind: prompt for prompt in thirds[0]}.values()))
    yield "first, dialogues alone", _calibration([prompt for prompt in thirds[0] if prompt.kind == "dialogues"])


def _calibration(prompts: list[Prompt]) -> Calibration:
    return Calibration(tuple(_samples(prompts)))


def _samples(prompts: list[Prompt]) -> list[Sample]:
    return samples_of(miniature_folder(), [Exchange(one.messages, one.answer or "", one.where) for one in prompts])


def dealt(prompts: list[Prompt]) -> tuple[list[Prompt], list[Prompt]]:
    """Those to judge, and those to calibrate on: none of these is asked there. UsageError where there are too few."""
    by_kind: dict[str, list[Prompt]] = defaultdict(list)
    for prompt in prompts:
        if prompt.answer is None:
            raise UsageError(f"{prompt.where} has no answer; each prompt needs one")
        by_kind[prompt.kind].append(prompt)
    for kind, of_kind in by_kind.items():
        if len(of_kind) < JUDGED + CALIBRATION:
            raise UsageError(f"there are {len(of_kind)} prompts of the kind {kind}; write {JUDGED + CALIBRATION}")
    judged = [prompt for of_kind in by_kind.values() for prompt in of_kind[:JUDGED]]
    others = [prompt for of_kind in by_kind.values() for prompt in of_kind[JUDGED : JUDGED + CALIBRATION]]
    return judged, others


def measure(report: Report, file: Path, prompts: list[Prompt]) -> None:
    """`file` holds a point for each recipe and calibration afterwards; what it has is not repeated."""
    judged, others = dealt(prompts)
    asked = _samples(judged)
    sets = [asked[number::SETS] for number in range(SETS)]
    model = RoundingModel(miniature_folder())
    clean = [model.answer_logprobs(samples) for samples in sets]
    for (name, calibration), recipe in product(calibrations(others), RECIPE_NAMES):
        facts = {"recipe": recipe, "calibration": name}
        if finished(FORM, report, facts):
            continue
        if calibration is not None:
            calibration = _without(calibration, asked)
        with tempfile.TemporaryDirectory() as place:
            done = convert_source(
                read_source(miniature_folder()), Path(place) / "packed", RECIPES[recipe], calibration=calibration
            )
            model.exchange(_matrices(Path(place) / "packed", model))
        tally = sum(done.changes.values(), start=Tally())
        point = facts | {
            "bits_per_weight": done.bits_per_weight,
            "calibration_prompts": len(calibration.samples) if calibration else 0,
            "calibration_tokens": calibration.tokens if calibration else 0,
            "relative_output_error": tally.relative_output_error,
            "plain_relative_output_error": tally.plain_relative_output_error,
            "sets": [_judged(model, *one) for one in zip(sets, clean, strict=True)],
        }
        put(FORM, report, point)
        write_report(report, file)
        sys.stderr.write(f"{recipe}, calibration: {name}\n")


def _without(calibration: Calibration, judged: list[Sample]) -> Calibration:
    """A few dialogues are drawn twice."""
    asked = {sample.digest for sample in judged}
    return replace(calibration, samples=tuple(one for one in calibration.samples if one.digest not in asked))


def _matrices(folder: Path, model: RoundingModel) -> dict[str, mx.array]:
    """What the packed matrices in `folder` stand for: products of whole ones are seven times as fast on a CPU."""
    tensors = read_source(folder).tensors
    found = {name: mx.concatenate(list(tensors[name].slices())).astype(mx.float32) for name in model.matrices}
    mx.eval(found)
    return found


def _judged(model: RoundingModel, samples: list[Sample], wanted: list[Any]) -> dict[str, Any]:
    found = Divergence()
    for sample, clean, logprobs in zip(samples, wanted, model.answer_logprobs(samples), strict=True):
        found.answers.append(found.add(np.array(clean), np.array(logprobs), sample.answer_ids))
    return found.figures


def table(report: Report) -> str:
    """Means over sets of each point's figures, and by how much plain rounding's are larger, pair by pair."""
    lines = [
        "| recipe | calibration | tokens | output error, % | plain, % | mean KL x 1000 | plain - this "
        "| median KL x 10^6 | plain - this | same top token, % | plain - this |",
        "|---|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for recipe in dict.fromkeys(point["recipe"] for point in report["points"]):
        points = {point["calibration"]: point for point in report["points"] if point["recipe"] == recipe}
        if points.keys() >= {*THIRDS}:
            points["a third, averaged"] = _average([points[name] for name in THIRDS])
        lines += [_row(recipe, name, point, points["none"]) for name, point in points.items()]
    return "\n".join(lines)


def _average(points: list[dict[str, Any]]) -> dict[str, Any]:
    """Of each figure, set by set."""
    sets = zip(*(point["sets"] for point in points), strict=True)
    errors = ("calibration_tokens", "relative_output_error", "plain_relative_output_error")
    return {key: float(np.mean([point[key] for point in points])) for key in errors} | {
        "sets": [{key: float(np.mean([one[key] for one in same])) for key in FIGURES} for same in sets]
    }


def _row(recipe: str, name: str, point: dict[str, Any], plain: dict[str, Any]) -> str:
    errors = [f"{100 * point[key]:.2f}" for key in ("relative_output_error", "plain_relative_output_error")]
    cells = [recipe, name, f"{point['calibration_tokens']:,.0f}", *errors]
    for key, unit in FIGURES.items():
        sets = [unit * one[key] for one in point["sets"]]
        mean, error = difference([unit * one[key] for one in plain["sets"]], sets)
        cells += [f"{np.mean(sets):.4g}", "" if point is plain else f"{mean:+.2g} +- {error:.2g}"]
    return f"| {' | '.join(cells)} |"


def main() -> None:
    """The command line."""
    if len(sys.argv) != 3:
        sys.exit("usage: python -m benchmarks.feedback PROMPTS RESULT")
    try:
        run(Path(sys.argv[1]), Path(sys.argv[2]))
    except GemmaError as error:
        sys.exit(str(error))


def run(asked: Path, file: Path) -> None:
    """Measures on the prompts in the file `asked`, keeps the points in `file` and prints the table."""
    prompts = read_prompts(asked)
    facts = {
        "benchmark": FORM.name,
        "model": miniature_folder().name,
        "miniature": True,
        **where_measured(),
        "dtype": "float32",
        "kv_bits": None,
        "prompts": digest(prompts),
    }
    report = continued(FORM, file, facts)
    measure(report, file, prompts)
    sys.stdout.write(table(report) + "\n")


if __name__ == "__main__":
    main()
