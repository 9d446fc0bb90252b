from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from gemma_mlx.gemma import Gemma
from gemma_mlx.tasks.listening import Heard, Listener
from gemma_mlx.tasks.transcription import Wanted
from gemma_mlx.tasks.windows import Samples

SCRIPT = Callable[[int, float], str]
LOOP = "one two " * 200


@dataclass
class Scripted:
    """Stands in for Gemma: says what `says` makes of (number of samples, temperature), a word at a time."""

    says: SCRIPT
    logprob: float = -0.1
    finish_reason: str = "stop"
    asked: list[tuple[int, float]] = field(default_factory=list)
    steps: int = 0
    prompts: Any = field(default_factory=lambda: SimpleNamespace(build=lambda messages: [0] * 70))

    def session(self) -> None:
        return None

    def sampling(self, *, temperature: float, seed: int | None = None) -> float:
        assert (seed is None) == (temperature == 0)
        return temperature

    def reply(self, messages: Sequence[Any], **options: Any) -> None:
        """The prompt before all sounds."""

    def stream(self, messages: Sequence[Mapping[str, Any]], *, sampling: float, **options: Any) -> _Answer:
        text, sound = messages[0]["content"]
        assert text["type"] == "text"
        samples, _ = sound["audio"]
        self.asked.append((len(samples), sampling))
        return _Answer(self, self.says(len(samples), sampling), sampling, options["logprobs"])


class _Answer:
    """With chance, the second best is chosen, which is five times less likely than the best."""

    def __init__(self, gemma: Scripted, text: str, temperature: float, logprobs: int) -> None:
        self._gemma, self._text, self._said = gemma, text, 0
        self._best = ((5, gemma.logprob), (6, gemma.logprob - 1.6))[:logprobs]
        self._token = 6 if temperature else 5

    def __iter__(self) -> Iterator[Any]:
        for word in self._text.split(" "):
            self._said += 1
            self._gemma.steps += 1
            yield SimpleNamespace(channel="answer", text=word + " ")

    @property
    def reply(self) -> Any:
        counts = dict.fromkeys(("audio_tokens", "prompt_tokens", "reused_tokens", "drafted_tokens"), 1)
        return SimpleNamespace(
            **counts,
            accepted_tokens=0,
            generated_tokens=self._said,
            tokens=(self._token,) * self._said,
            logprobs=(self._best,) * self._said,
            finish_reason=self._gemma.finish_reason,
            generation_tps=10.0,
            peak_memory_bytes=self._said,
        )


def hear(scripted: Scripted, seconds: float = 4.0, *, spoken_s: float | None = None, wanted: Wanted | None = None,
         logprobs: int = 0) -> Heard:  # fmt: skip
    rng = np.random.default_rng(0)
    samples: Samples = rng.normal(0, 0.1, int(seconds * 16_000)).astype(np.float32)
    samples[int(1.5 * 16_000) : int(1.7 * 16_000)] = 0
    gemma: Any = scripted
    listener = Listener(gemma, wanted or Wanted(), max_tokens=500, logprobs=logprobs)
    return listener.hear(samples, seconds if spoken_s is None else spoken_s)


def test_what_is_heard_at_once() -> None:
    scripted = Scripted(lambda samples, temperature: "one two three")
    heard = hear(scripted)
    assert (heard.text, heard.doubts, heard.mean_logprob) == ("one two three", (), -0.1)
    assert scripted.asked == [(64_000, 0.0)]
    assert heard.tokens == heard.logprobs == ()


def test_a_loop_stops_early_and_is_heard_again_in_two_halves_cut_at_the_quietest_place() -> None:
    scripted = Scripted(lambda samples, temperature: LOOP if samples == 64_000 else f"half of {samples > 30_000}")
    heard = hear(scripted)
    assert (heard.text, heard.doubts) == ("half of False half of True", ())
    assert scripted.steps < 60
    first, second = [samples for samples, _ in scripted.asked[1:]]
    assert first + second == 64_000
    assert first == pytest.approx(1.6 * 16_000, abs=1600)
    assert (heard.counts["audio_tokens"], heard.attempts) == (3, 3)
    assert heard.decoding_s == pytest.approx((heard.counts["generated_tokens"] - 3) / 10)
    assert 0 < heard.peak_memory_bytes < heard.counts["generated_tokens"]  # the most of one attempt, not of all


def test_a_loop_that_stays_in_the_halves_is_tried_with_some_chance() -> None:
    scripted = Scripted(lambda samples, temperature: "well then" if temperature else LOOP)
    heard = hear(scripted)
    assert (heard.text, heard.doubts) == ("well then", ("low log-probability",))
    assert heard.mean_logprob == -1.7  # of the tokens that were drawn, not of the best
    assert [temperature > 0 for _, temperature in scripted.asked] == [False, False, False, True]


def test_a_loop_that_stays_is_cut_where_it_begins_and_doubted() -> None:
    heard = hear(Scripted(lambda samples, temperature: "so it is: " + LOOP), logprobs=1)
    assert (heard.text, heard.doubts) == ("so it is: one two", ("loop",))
    assert (len(heard.tokens), len(heard.logprobs)) == (5, 5)


def test_a_short_sound_has_no_halves() -> None:
    scripted = Scripted(lambda samples, temperature: "well" if temperature else LOOP)
    assert hear(scripted, 1.9).text == "well"
    assert len(scripted.asked) == 2


def test_why_something_is_doubtful() -> None:
    assert hear(Scripted(lambda *_: "a b", logprob=-1.5)).doubts == ("low log-probability",)
    assert hear(Scripted(lambda *_: "a b", finish_reason="length")).doubts == ("cut off",)
    assert hear(Scripted(lambda *_: "")).doubts == ("speech without text",)
    assert hear(Scripted(lambda *_: ""), spoken_s=0.3).doubts == ()
    many = " ".join(str(number) for number in range(100))
    assert hear(Scripted(lambda *_: many)).doubts == ("too much text",)
    assert hear(Scripted(lambda *_: "Hallo"), wanted=Wanted(target="English")).doubts == ("no translation",)


def test_a_translation_is_told_from_what_was_said() -> None:
    heard = hear(Scripted(lambda *_: "Guten Tag.\nEnglish: Good day."), wanted=Wanted("German", "English"))
    assert (heard.text, heard.said, heard.doubts) == ("Good day.", "Guten Tag.", ())


def test_logprobs_are_kept_where_they_are_wanted() -> None:
    heard = hear(Scripted(lambda *_: "a b"), logprobs=1)
    assert heard.tokens == (5, 5)
    assert heard.logprobs == (((5, -0.1),),) * 2
    drawn = hear(Scripted(lambda samples, temperature: "well then" if temperature else LOOP), logprobs=1)
    assert (drawn.tokens, drawn.logprobs) == ((6, 6), (((5, -0.1),),) * 2)


def test_the_prompt_is_computed_once_and_the_order_of_windows_changes_nothing(miniature: Gemma) -> None:
    rng = np.random.default_rng(1)
    sounds = [rng.normal(0, 0.05, count).astype(np.float32) for count in (16_000, 30_000, 9_000)]

    def listen(order: Sequence[int]) -> dict[int, Heard]:
        listener = Listener(miniature, Wanted(), max_tokens=6, draft="off", logprobs=2)
        return {index: listener.hear(sounds[index], 1.0) for index in order}

    forward, backward = listen([0, 1, 2]), listen([2, 0, 1])
    assert forward == backward  # to the last bit of every log-probability
    for heard in forward.values():
        assert heard.counts["reused_tokens"] > 0.8 * (heard.counts["prompt_tokens"] - heard.counts["audio_tokens"] - 8)
