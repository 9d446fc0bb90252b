"""What drafting gains: the same greedy answers with and without, in turn, so that a drifting machine favours neither.

A point is a kind of prompt with a fixed depth of drafts, or with the depth left to the controller ("auto" in
`gemma-mlx ask`). Each of its runs goes over all prompts of that kind, and answers each twice: with drafts and without,
now the one first and now the other. Counts are over all runs; a ratio of speeds is the median of the runs' ratios.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.draft_tally import Run, Tally, Timed, Watched
from benchmarks.machine import adapter_facts, fingerprint, where_measured
from benchmarks.point import DTYPES
from benchmarks.prompts import Prompt, digest
from benchmarks.report import Form
from gemma_mlx.decoding.costs import MAX_DEPTH, measure_costs
from gemma_mlx.decoding.depth import DepthController, FixedDepth
from gemma_mlx.decoding.speculate import DepthRule, DraftMode
from gemma_mlx.errors import GemmaError
from gemma_mlx.gemma import Gemma
from gemma_mlx.memory import stored_numbers, weights_bytes
from gemma_mlx.soft_tokens import soft_tokens

DEPTHS = (0, 1, 2, 3, 4, 6, 8)
COST_ROUNDS = 3
COST_ROUND_S = 60.0
"""Long enough for every number of rows to be measured, and none read off a line."""
FORM = Form(
    name="drafting",
    place=("kind", "depth"),
    drawn=frozenset({"draft", "costs"}),
    lists=("points", "costs"),
)
Point = dict[str, Any]


@dataclass(frozen=True)
class Comparison:
    """What to measure. `folder` and `drafter` are where the model and its draft head come from."""

    folder: Path
    drafter: Path | None
    prompts: Sequence[Prompt]
    draft: DraftMode = "auto"
    """Who drafts for the controller. At fixed depths it is one: with "auto" the drafter, if there is one."""
    depths: Sequence[int] = DEPTHS
    max_tokens: int = 64
    runs: int = 3
    adapter: Path | None = None
    """The model answers with it, and the drafter guesses as it does without."""

    @property
    def kinds(self) -> list[str]:
        return list(dict.fromkeys(prompt.kind for prompt in self.prompts))

    @property
    def fixed_draft(self) -> DraftMode:
        if self.draft == "auto":
            return "mtp" if self.drafter else "lookup"
        return self.draft

    def point_facts(self) -> list[Point]:
        """What is known of each point before measuring, the kinds one after the other; depth None is the controller."""
        return [
            {"kind": kind, "mode": self.draft if depth is None else self.fixed_draft, "depth": depth}
            for kind in self.kinds
            for depth in (*self.depths, None)
        ]


def comparison_facts(comparison: Comparison, gemma: Gemma) -> dict[str, Any]:
    """What all points have in common. Two runs that agree here can be put together."""
    dtype, drafter = gemma.model.dtype, comparison.drafter
    return {
        "benchmark": "drafting",
        "model": gemma.name,
        "miniature": gemma.miniature,
        "fingerprint": fingerprint(comparison.folder),
        "weights_bytes": weights_bytes(stored_numbers(comparison.folder), dtype.size),
        "drafter": drafter.resolve().name if drafter else None,
        "drafter_fingerprint": fingerprint(drafter) if drafter else None,
        "drafter_bytes": weights_bytes(stored_numbers(drafter), dtype.size) if drafter else 0,
        **adapter_facts(comparison.adapter, gemma.adapter_digest),
        **where_measured(),
        "dtype": next(name for name, found in DTYPES.items() if found == dtype),
        "kv_bits": gemma.plan.kv_bits,
        "draft": comparison.draft,
        "max_tokens": comparison.max_tokens,
        "runs": comparison.runs,
        "prompts": digest(comparison.prompts),
    }


class Bench:
    """The measuring of a comparison with a loaded model."""

    def __init__(self, comparison: Comparison, gemma: Gemma) -> None:
        """Reads all media: GemmaError that names the prompt where one cannot be used."""
        self._comparison, self._gemma = comparison, gemma
        self._messages: dict[str, list[list[dict[str, Any]]]] = {kind: [] for kind in comparison.kinds}
        for prompt in comparison.prompts:
            try:
                prepared = gemma.prepare(prompt.messages)
                gemma.prompts.build(prepared)
            except GemmaError as error:
                raise type(error)(f"{prompt.where}: {error}") from None
            self._messages[prompt.kind].append(prepared)

    def costs(self, kind: str) -> dict[str, Any]:
        """Seconds of a draft step and of a pass over 1, 2, ... rows after the first prompt of `kind`: the least of
        several times."""
        gemma = self._gemma
        prompt = gemma.prompts.build(self._messages[kind][0])
        session = gemma.session()
        with gemma.plan.limits():
            session.prefill(prompt.ids, soft_tokens(gemma.model, prompt.spans), reserve_tokens=MAX_DEPTH + 1)
            found = [
                measure_costs(gemma.model, session.caches, gemma.drafter, COST_ROUND_S) for _ in range(COST_ROUNDS)
            ]
        return {
            "kind": kind,
            "prompt_tokens": len(prompt),
            "draft_s": min((costs.draft_s for costs in found if costs.draft_s is not None), default=None),
            "verify_s": [min(times) for times in zip(*(costs.verify_s for costs in found), strict=True)],
        }

    def warm_up(self, kind: str, facts: Point) -> None:
        """What happens only once, as compiling, has happened afterwards."""
        self._answer(self._messages[kind][0], "off", FixedDepth(0))
        if facts["depth"]:
            self._answer(self._messages[kind][0], facts["mode"], FixedDepth(facts["depth"]))

    def point(self, facts: Point, progress: Callable[[int], None] = lambda run: None) -> Point:
        """Measures the point that has these `facts`; `progress` is told the number of the run."""
        depth, mode = facts["depth"], facts["mode"]
        self.warm_up(facts["kind"], facts)
        rule: DepthRule = DepthController() if depth is None else FixedDepth(depth)
        tally = Tally()
        for run in range(self._comparison.runs):
            progress(run + 1)
            pairs = Run()
            for index, messages in enumerate(self._messages[facts["kind"]]):
                watched = Watched(rule)
                answers = {}
                for drafting in (True, False) if (run + index) % 2 else (False, True):
                    answers[drafting] = self._answer(messages, mode if drafting else "off", watched)
                pairs.add(answers[False], answers[True], watched)
            tally.add(pairs)
        return {**facts, **tally.figures(controlled=depth is None)}

    def _answer(self, messages: list[dict[str, Any]], draft: DraftMode, rule: DepthRule) -> Timed:
        gemma, prompt_ends_s = self._gemma, [0.0]
        before, gemma.depth_rule = gemma.depth_rule, rule
        try:
            answer = gemma.stream(
                messages,
                draft=draft,
                sampling=gemma.sampling(temperature=0.0),
                max_tokens=self._comparison.max_tokens,
                progress=lambda done, _: prompt_ends_s.append(time.perf_counter()),
            )
            for _ in answer:
                pass
            return Timed(answer.reply, time.perf_counter() - prompt_ends_s[-1])
        finally:
            gemma.depth_rule = before
