"""Does better rounding lower KL at equal size? `python -m benchmarks.rounding PROMPTS RESULT`.

Rounds the matrices of the miniature by each rule of `rounding_rules.py` and says how far its answers move from those of
the unpacked one. Rules with data take it from the samples that come along. PROMPTS holds others, with answers
(`python -m assets.training.eval_set`); every eighth of them makes a set, so that a difference to the plain rule has a
standard error over eight disjoint ones.

The miniature was trained to bear the plain rule in groups of 64. So each set also has an order of its own in which all
columns are dealt to groups: groups that no training has seen. A run that was stopped goes on from RESULT.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from itertools import product
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np

from benchmarks.divergence import Divergence
from benchmarks.machine import where_measured
from benchmarks.mixed_sizes import held_out
from benchmarks.prompts import Prompt, digest, read_prompts
from benchmarks.report import Form, Report, continued, finished, put, write_report
from benchmarks.rounding_model import RoundingModel
from benchmarks.rounding_rules import MATRIX_RULES, Rule, channel_scales, plain
from convert.calibration import Exchange, default_exchanges, samples_of
from convert.recipes import Packing
from convert.sensitivity import Sample
from gemma_mlx.errors import GemmaError, UsageError
from gemma_mlx.home import miniature_folder

SETS = 8
PACKINGS = (Packing(4, 64), Packing(4, 32))
COLUMNS = ("shuffled", "as trained")
SCALED = "channel scales"
RULES = (*MATRIX_RULES, SCALED)
FORM = Form(name="rounding", place=("packing", "columns", "set", "rule"), drawn=frozenset({"prompts"}))
FIGURES = {"kl_mean": 1000, "kl_median": 1_000_000, "top1_agreement": 100}
"""What the table has of each point, and in which unit: thousandths and millionths of a nat, per cent."""
Rounded = Callable[[mx.array, mx.array], mx.array]
"""Numbers [R, C] and second moments [C, C] -> what is stored for the numbers."""


def in_order(rule: Rule, packing: Packing, seed: int | None) -> Rounded:
    """`rule`, with the columns dealt to groups in an order drawn from `seed`; None: as they stand."""

    def rounded(weight: mx.array, moments: mx.array) -> mx.array:
        columns = weight.shape[1]
        order = np.arange(columns) if seed is None else np.random.default_rng((seed, columns)).permutation(columns)
        there, back = mx.array(order), mx.array(np.argsort(order))
        return rule(weight[:, there], moments[there][:, there], packing)[:, back]

    return rounded


def matrices(
    model: RoundingModel, moments: dict[str, mx.array], rule: str, packing: Packing, seed: int | None
) -> dict[str, mx.array]:
    """What the packed matrices of `model` stand for, by name."""
    rounded = in_order(MATRIX_RULES.get(rule, plain), packing, seed)
    found = {name: rounded(model.weights[name], moments[name]) for name in model.matrices}
    if rule == SCALED:
        for index in range(model.layers):
            found |= scaled_layer(model.weights, moments, f"language_model.layers.{index}.", rounded)
    mx.eval(found)
    return found


def scaled_layer(
    weights: dict[str, mx.array], moments: dict[str, mx.array], prefix: str, rounded: Rounded
) -> dict[str, mx.array]:
    """The matrices of a layer whose columns can be scaled so that what comes before takes the scale in, exactly:

        input_layernorm -> q_proj k_proj v_proj      pre_feedforward_layernorm -> gate_proj up_proj
        rows of up_proj -> columns of down_proj

    Not o_proj: between it and v_proj each head is normed without a weight. Not the head: its norm could take a scale,
    but its matrix is the token table as well.
    """

    def scales(names: list[str], norm: str | None) -> mx.array:
        shared, weight = moments[names[0]], None if norm is None else weights[f"{prefix}{norm}.weight"]
        return channel_scales([weights[name] for name in names], shared, weight, lambda part: rounded(part, shared))

    heads = [name for kind in "qkv" if (name := f"{prefix}self_attn.{kind}_proj.weight") in weights]
    gate, up, down = (f"{prefix}mlp.{kind}_proj.weight" for kind in ("gate", "up", "down"))
    of_heads, of_mlp = scales(heads, "input_layernorm"), scales([gate, up], "pre_feedforward_layernorm")
    of_down = scales([down], None)
    found = {name: rounded(weights[name] * of_heads, moments[name]) / of_heads for name in heads}
    found[gate] = rounded(weights[gate] * of_mlp, moments[gate]) / of_mlp
    rows = of_down[:, None]
    found[up] = rounded(weights[up] * of_mlp / rows, moments[up]) / of_mlp * rows
    found[down] = rounded(weights[down] * of_down, moments[down]) / of_down
    return found


def judged(model: RoundingModel, samples: list[Sample], clean: list[mx.array]) -> dict[str, Any]:
    """How far the answers are from `clean`: the figures of `bench quality`."""
    found = Divergence()
    for sample, wanted, logprobs in zip(samples, clean, model.answer_logprobs(samples), strict=True):
        again = found.add(np.array(wanted), np.array(logprobs), sample.answer_ids)
        found.answers.append(again)
    return found.figures


def measure(report: Report, file: Path, prompts: list[Prompt]) -> None:
    """`file` holds a point for each packing, order of columns, set and rule afterwards; what it has is not repeated."""
    folder = miniature_folder()
    model = RoundingModel(folder)
    moments = model.moments(samples_of(folder, [*default_exchanges(miniature=True), *held_out()]))
    asked = samples_of(folder, [Exchange(one.messages, one.answer or "", one.where) for one in prompts])
    sets = [asked[number::SETS] for number in range(SETS)]
    clean = [model.answer_logprobs(samples) for samples in sets]
    for columns, number, packing, rule in product(COLUMNS, range(SETS), PACKINGS, RULES):
        name = f"{packing.bits} bits, groups of {packing.group_size}"
        facts = {"packing": name, "columns": columns, "set": number, "rule": rule}
        if finished(FORM, report, facts):
            continue
        seed = number if columns == "shuffled" else None
        model.exchange(matrices(model, moments, rule, packing, seed))
        put(FORM, report, {**facts, **judged(model, sets[number], clean[number])})
        write_report(report, file)
        sys.stderr.write(f"{name}, columns {columns}, set {number + 1} of {SETS}: {rule}\n")


def table(report: Report) -> str:
    """Means over sets of each rule's figures, and by how much the plain rule's are larger, pair by pair."""
    points = {tuple(point[key] for key in FORM.place): point for point in report["points"]}
    lines = [
        "| packing | columns | rule | mean KL x 1000 | plain - this | median KL x 10^6 | plain - this "
        "| same top token, % | plain - this |",
        "|---|---|---|---:|---:|---:|---:|---:|---:|",
    ]
    for packing, columns in dict.fromkeys(place[:2] for place in points):
        for rule in RULES:
            cells = [str(packing), str(columns), rule]
            for key, unit in FIGURES.items():
                plain_sets, sets = (
                    [unit * points[packing, columns, number, one][key] for number in range(SETS)]
                    for one in ("plain", rule)
                )
                mean, error = difference(plain_sets, sets)
                cells += [f"{np.mean(sets):.2f}", f"{mean:+.2f} +- {error:.2f}" if rule != "plain" else ""]
            lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def difference(first: list[float], second: list[float]) -> tuple[float, float]:
    """The mean of `first` - `second`, taken pair by pair, and its standard error."""
    differences = np.array(first) - np.array(second)
    return float(differences.mean()), float(differences.std(ddof=1) / np.sqrt(len(differences)))


def main() -> None:
    """The command line."""
    if len(sys.argv) != 3:
        sys.exit("usage: python -m benchmarks.rounding PROMPTS RESULT")
    try:
        run(Path(sys.argv[1]), Path(sys.argv[2]))
    except GemmaError as error:
        sys.exit(str(error))


def run(asked: Path, file: Path) -> None:
    """Measures on the prompts in the file `asked`, keeps the points in `file` and prints the table."""
    prompts = read_prompts(asked)
    if missing := [one.where for one in prompts if one.answer is None]:
        raise UsageError(f"{missing[0]} has no answer; each prompt needs one")
    if len(prompts) < SETS:
        raise UsageError(f"{str(asked)!r} has {len(prompts)} prompts for {SETS} sets; write at least {SETS}")
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
