"""A model that says what it is told to, as fast as it is told to: for what happens around a model, and not in it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from threading import Event
from types import SimpleNamespace
from typing import Any

from gemma_mlx.answer import Reply, Step
from gemma_mlx.decoding.channels import Channel
from gemma_mlx.decoding.sampling import Sampling
from gemma_mlx.memory_limits import MemoryUse

Script = Iterable["tuple[Channel, str] | Exception | Event"]
"""What each token says and in which channel; an exception is raised in its place, an event is waited for."""

LONGEST_WAIT_S = 20


def spoken(text: str) -> list[tuple[Channel, str]]:
    """`text` as an answer in tokens of about four characters."""
    return [("answer", text[start : start + 4]) for start in range(0, len(text), 4)]


class ScriptedAnswer:
    """Has what the chat uses of `gemma_mlx.answer.Answer`."""

    def __init__(
        self, script: Script, interval_s: float, max_tokens: int | None, progress: Callable[[int, int], None] | None
    ) -> None:
        self._script, self._interval_s, self._max_tokens, self._progress = script, interval_s, max_tokens, progress
        self._steps: list[Step] = []
        self._finish_reason = "interrupted"
        self.late_s: list[float] = []
        """How much later than due each token was handed on."""

    def __iter__(self) -> Iterator[Step]:
        if self._progress is not None:
            self._progress(0, 32)
            self._progress(32, 32)
        due_s = time.perf_counter()
        for said in self._script:
            if isinstance(said, Event):
                said.wait(LONGEST_WAIT_S)
                continue
            if isinstance(said, Exception):
                raise said
            if len(self._steps) == self._max_tokens:
                self._finish_reason = "length"
                return
            due_s += self._interval_s
            time.sleep(max(0.0, due_s - time.perf_counter()))
            self.late_s.append(time.perf_counter() - due_s)
            channel, text = said
            step = Step(1, text, channel)
            self._steps.append(step)
            yield step
        self._finish_reason = "stop"

    @property
    def reply(self) -> Reply:
        steps = self._steps
        return Reply(
            text="".join(step.text for step in steps if step.channel == "answer"),
            thought="".join(step.text for step in steps if step.channel == "thought"),
            finish_reason=self._finish_reason,
            model="scripted",
            miniature=True,
            tokens=tuple(step.token for step in steps),
            logprobs=(),
            prompt_tokens=32,
            reused_tokens=16,
            image_tokens=0,
            audio_tokens=0,
            video_tokens=0,
            generated_tokens=len(steps),
            thought_tokens=sum(step.channel == "thought" for step in steps),
            drafted_tokens=0,
            accepted_tokens=0,
            target_passes=len(steps),
            draft_gain=None,
            time_to_first_token_s=self._interval_s,
            generation_tps=1 / self._interval_s if self._interval_s else 0.0,
            peak_memory_bytes=1_000_000_000,
        )


class ScriptedGemma:
    """Has what the chat uses of `gemma_mlx.gemma.Gemma`. Each answer is the next of `scripts`."""

    name = "scripted"
    miniature = True
    folder = Path("scripted")

    def __init__(self, scripts: Iterable[Script], interval_s: float = 0.0, max_tokens: int | None = None) -> None:
        """`max_tokens` cuts each answer."""
        self._scripts, self._interval_s, self._max_tokens = iter(scripts), interval_s, max_tokens
        self.plan = SimpleNamespace(context_tokens=8192, limit_bytes=2_000_000_000)
        self.prompts = SimpleNamespace(max_soft_tokens=280)
        self.asked: list[dict[str, Any]] = []
        """The last message of each prompt."""
        self.answers: list[ScriptedAnswer] = []

    def session(self) -> Any:
        return SimpleNamespace(reset=lambda: None, offset=0)

    def memory(self) -> MemoryUse:
        return MemoryUse(1_000_000_000, self.plan.limit_bytes)

    def sampling(self, **asked: float | int | None) -> Sampling:
        return Sampling(temperature=1.0)

    def stream(
        self, messages: list[dict[str, Any]], *, progress: Callable[[int, int], None] | None = None, **options: Any
    ) -> ScriptedAnswer:
        self.asked.append(messages[-1])
        self.answers.append(ScriptedAnswer(next(self._scripts), self._interval_s, self._max_tokens, progress))
        return self.answers[-1]

    def prepare(self, messages: list[dict[str, Any]], detail: Any = None) -> list[dict[str, Any]]:
        from gemma_mlx.inputs.media import prepare_media

        def prepared(part: dict[str, Any]) -> dict[str, Any]:
            return {**part, part["type"]: prepare_media(part, detail or self.prompts.max_soft_tokens)}

        return [{**message, "content": [prepared(part) for part in message["content"]]} for message in messages]
