"""What models find in the files of a set, kept file by file, and the figures of that."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.quality_sets import EvalSet
from gemma_mlx.answer import Reply
from gemma_mlx.errors import GemmaError
from gemma_mlx.gemma import Gemma
from gemma_mlx.replace_file import replacing
from gemma_mlx.tasks.captioning import caption
from gemma_mlx.tasks.transcription import transcribe

Point = dict[str, Any]


@dataclass(frozen=True)
class Answers:
    """What one model found in the files of a set: JSON Lines in `file`, in the form that --hypotheses takes."""

    file: Path
    eval_set: EvalSet
    budget: int | None

    @classmethod
    def of(cls, folder: Path, eval_set: EvalSet, facts: Point) -> Answers:
        """Those of the point that has these `facts`, kept in `folder`."""
        budget = facts["budget"]
        name = eval_set.name if budget is None else f"{eval_set.name}-{budget}"
        return cls(folder / f"{facts['folder']}-{facts['fingerprint']}" / f"{name}-{facts['digest']}.jsonl",
                   eval_set, budget)  # fmt: skip

    def found(self) -> dict[str, Point]:
        """The answers so far, by file. A line that a kill cut short is none."""
        lines = self.file.read_text(encoding="utf-8").splitlines(keepends=True) if self.file.is_file() else []
        answers = [json.loads(line) for line in lines if line.endswith("\n")]
        return {answer["file"]: answer for answer in answers if "text" in answer}

    def complete(self, gemma: Gemma, max_tokens: int) -> Iterator[tuple[str, str | None]]:
        """Answers what is not answered yet; yields each file's name as it is begun, then perhaps why it failed."""
        done = self.found()
        self.file.parent.mkdir(parents=True, exist_ok=True)
        with replacing(self.file) as whole_lines:
            whole_lines.writelines(json.dumps(line).encode() + b"\n" for line in done.values())
        with self.file.open("a", encoding="utf-8") as lines:
            for path in self.eval_set.expected:
                if path.name in done:
                    continue
                yield path.name, None
                started_s = time.perf_counter()
                try:
                    reply = self._answer(gemma, path, max_tokens)
                except GemmaError as error:
                    yield path.name, str(error)
                    continue
                lines.write(json.dumps(_line(path, reply, time.perf_counter() - started_s)) + "\n")
                lines.flush()

    def _answer(self, gemma: Gemma, path: Path, max_tokens: int) -> Reply:
        if self.eval_set.kind == "audio":
            return transcribe(gemma, path, max_tokens=max_tokens, draft="off")
        greedy = gemma.sampling(temperature=0.0)
        prompt, detail = self.eval_set.prompt, self.budget
        return caption(gemma, path, prompt, sampling=greedy, max_tokens=max_tokens, detail=detail, draft="off")

    def figures(self, reference: Answers, *, spoken: bool) -> Point:
        """Error rates, tokens and seconds over the files that were answered; how many answers are the reference's."""
        found = self.found()
        texts = {name: answer["text"] for name, answer in found.items()}
        others = {name: answer["text"] for name, answer in reference.found().items()}
        sums = ("image_tokens", "audio_tokens", "prompt_tokens", "generated_tokens", "seconds")
        return {
            **self.eval_set.figures(texts, spoken=spoken),
            "same_as_reference": sum(others.get(name) == text for name, text in texts.items()),
            "cut": sum(answer["finish_reason"] == "length" for answer in found.values()),
            **{name: sum(answer[name] for answer in found.values()) for name in sums},
        }


def _line(path: Path, reply: Reply, seconds: float) -> Point:
    counts = ("finish_reason", "image_tokens", "audio_tokens", "prompt_tokens", "generated_tokens")
    told = {name: getattr(reply, name) for name in counts}
    return {"file": path.name, "text": reply.text.strip(), **told, "seconds": round(seconds, 4)}
