"""What packing costs: the same prompts and the same files at a reference and at other folders, one model at a time.

Likelihood: over the positions of each prompt's answer, inside the chat frame of the checkpoint's own template with the
thinking channel closed, how far a model's distribution is from the reference's. The answers are given, or the
reference's own greedy ones. Sets: what a model finds in files, beside what is right.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from benchmarks.machine import adapter_facts, where_measured
from benchmarks.prompts import Prompt, digest
from benchmarks.quality_sets import EvalSet, Hypotheses
from benchmarks.report import Form, Report
from gemma_mlx.adapters.adapter import Adapter
from gemma_mlx.checkpoint import fingerprint, tensor_files
from gemma_mlx.config import read_config
from gemma_mlx.errors import UsageError

ALL = "all"
"""The name of the likelihood point over all kinds of prompts."""
FORM = Form(name="quality", place=("part", "name", "folder", "budget"), drawn=frozenset({"max_tokens"}))
Point = dict[str, Any]


@dataclass(frozen=True)
class Comparison:
    """What to measure. Of `folders`, by the names that they are shown under, the first is the reference."""

    folders: Mapping[str, Path]
    prompts: Sequence[Prompt]
    """Empty: no likelihood is measured."""
    sets: Sequence[EvalSet]
    budgets: Sequence[int]
    """Soft tokens of a picture, each to be measured."""
    hypotheses: Sequence[Hypotheses]
    max_tokens: int
    written: bool
    """Whether transcripts are compared as they are written, too."""
    adapter: Adapter | None = None
    """Every folder is measured with it."""

    @property
    def reference(self) -> str:
        return next(iter(self.folders))

    @property
    def kinds(self) -> list[str]:
        return list(dict.fromkeys(prompt.kind for prompt in self.prompts))

    def check(self) -> None:
        """UsageError where the folders cannot be of one model."""
        sizes = {name: read_config(folder).text.vocab_size for name, folder in self.folders.items()}
        for name, size in sizes.items():
            if size != (wanted := sizes[self.reference]):
                raise UsageError(
                    f"{name} has {size:,} tokens, {self.reference} {wanted:,}; compare folders of one model"
                )

    def likelihood_facts(self, name: str) -> list[Point]:
        """What is known of the likelihood points of a folder before measuring."""
        kinds = [*self.kinds, ALL] if len(self.kinds) > 1 else self.kinds
        return [{"part": "likelihood", "name": kind, "budget": None, **self._folder_facts[name]} for kind in kinds]

    def set_facts(self, name: str) -> list[tuple[EvalSet, Point]]:
        """The same of its sets, each picture set at each budget."""
        return [
            (one, {**self._scored(one), "budget": budget, **self._folder_facts[name]})
            for one in self.sets
            for budget in (self.budgets if one.kind == "image" else [None])
        ]

    def hypotheses_points(self) -> list[Point]:
        """The scores of other systems: nothing has to be run for them."""
        return [
            {
                **self._scored(one),
                "budget": None,
                "folder": other.name,
                "stored_bytes": None,
                **one.figures(texts, spoken=self.spoken(one)),
            }
            for other in self.hypotheses
            for one in self.sets
            if (texts := other.of(one))
        ]

    def spoken(self, one: EvalSet) -> bool:
        """Whether texts of that set are compared as they are spoken."""
        return one.kind == "audio" and not self.written

    def _scored(self, one: EvalSet) -> Point:
        scored = "as spoken" if self.spoken(one) else "as written"
        return {"part": "set", "name": one.name, "kind": one.kind, "digest": one.digest, "scored": scored}

    @cached_property
    def _folder_facts(self) -> dict[str, Point]:
        """What tells each folder from others, by name."""
        adapted = f"-{self.adapter.digest[:16]}" if self.adapter else ""
        return {
            name: {
                "folder": name,
                "fingerprint": fingerprint(folder)[:16] + adapted,
                "stored_bytes": sum(file.stat().st_size for file in tensor_files(folder)),
            }
            for name, folder in self.folders.items()
        }


def comparison_facts(comparison: Comparison, dtype: str) -> dict[str, Any]:
    """What all points have in common. Two runs that agree here can be put together."""
    folder = comparison.folders[comparison.reference]
    adapter = comparison.adapter
    return {
        "benchmark": "quality",
        "model": comparison.reference,
        "miniature": read_config(folder).is_miniature,
        "reference_fingerprint": fingerprint(folder)[:16],
        **adapter_facts(adapter.folder if adapter else None, adapter.digest if adapter else None),
        **where_measured(),
        "dtype": dtype,
        "kv_bits": None,
        "max_tokens": comparison.max_tokens,
        "prompts": digest(comparison.prompts) if comparison.prompts else None,
        "given_answers": sum(prompt.answer is not None for prompt in comparison.prompts),
    }


def total_points(report: Report) -> list[Point]:
    """The likelihood points over all kinds of prompts; where there is one kind, those of it."""
    points = [point for point in report["points"] if point["part"] == "likelihood"]
    return [point for point in points if point["name"] == ALL] or points
