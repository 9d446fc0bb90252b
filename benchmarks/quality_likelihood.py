"""A model's distributions over the tokens of answers, beside the reference's: one model in memory at a time.

The reference comes first, and its logits are kept on disk; each other model is compared with them as it goes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from benchmarks.divergence import Divergence
from benchmarks.kept_rows import KeptRows
from benchmarks.prompts import Prompt
from benchmarks.quality import ALL, Comparison
from gemma_mlx.errors import GemmaError
from gemma_mlx.gemma import Gemma
from gemma_mlx.inputs import prompt as chat


class Likelihood:
    """The reference's logits over all answers, once it was measured, and other models beside them."""

    def __init__(self, comparison: Comparison) -> None:
        self._comparison = comparison
        self._asked: list[tuple[tuple[int, ...], tuple[int, ...]]] = []
        """Of each prompt the ids, and those of the answer."""
        self._kept: KeptRows | None = None

    def close(self) -> None:
        """The logits are gone afterwards."""
        if self._kept is not None:
            self._kept.close()

    def measure(self, gemma: Gemma, progress: Callable[[str], None]) -> dict[str, Any]:
        """The figures of each kind of prompt and, of several, of all. The first model measured is the reference."""
        prompts = [self._built(gemma, prompt) for prompt in self._comparison.prompts]
        first = self._kept is None
        if first:
            answers = [self._given(gemma, prompt) for prompt in self._comparison.prompts]
            most_rows = sum(len(answer) if answer else self._comparison.max_tokens for answer in answers)
            self._kept = KeptRows(gemma.config.text.vocab_size, most_rows)
        found = {kind: Divergence() for kind in self._comparison.kinds}
        place = 0
        for number, (prompt, built) in enumerate(zip(self._comparison.prompts, prompts, strict=True)):
            progress(f"prompt {number + 1} of {len(prompts)}")
            if first:
                self._asked.append((built.ids, answers[number] or self._greedy(gemma, prompt)))
            ids, answer = self._asked[number]
            if built.ids != ids:
                raise GemmaError(
                    f"{prompt.where}: {gemma.name} makes other tokens of it than the reference; compare folders with "
                    "the same tokenizer, template and processor_config.json"
                )
            self._compare(found[prompt.kind], place, built, answer, gemma, first)
            place += len(answer)
        points = dict(found)
        if len(found) > 1:
            points[ALL] = Divergence()
            for one in found.values():
                points[ALL].extend(one)
        return {kind: one.figures for kind, one in points.items()}

    def _compare(
        self, found: Divergence, place: int, built: chat.Prompt, answer: Sequence[int], gemma: Gemma, first: bool
    ) -> None:
        """Adds the positions of `answer`, whose first row stands at `place`."""
        assert self._kept is not None
        again, done = True, 0
        for logits in gemma.answer_logits(built, answer):
            rows = np.array(logits)
            del logits
            if first:
                self._kept.append(rows)
            wanted = rows if first else self._kept.rows(place + done, len(rows))
            again &= found.add(wanted, rows, answer[done : done + len(rows)])
            done += len(rows)
        found.answers.append(again)

    @staticmethod
    def _built(gemma: Gemma, prompt: Prompt) -> chat.Prompt:
        try:
            return gemma.prompts.build(gemma.prepare(prompt.messages))
        except GemmaError as error:
            raise type(error)(f"{prompt.where}: {error}") from None

    @staticmethod
    def _given(gemma: Gemma, prompt: Prompt) -> tuple[int, ...] | None:
        return None if prompt.answer is None else gemma.prompts.answer_ids(prompt.answer)

    def _greedy(self, gemma: Gemma, prompt: Prompt) -> tuple[int, ...]:
        greedy = gemma.sampling(temperature=0.0)
        return gemma.reply(prompt.messages, sampling=greedy, max_tokens=self._comparison.max_tokens, draft="off").tokens
