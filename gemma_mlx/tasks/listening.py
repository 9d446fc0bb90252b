"""One window of speech -> what the model hears in it, and what makes that doubtful."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from gemma_mlx.answer import Reply
from gemma_mlx.decoding.sampling import Sampling
from gemma_mlx.decoding.speculate import DraftMode
from gemma_mlx.gemma import Gemma
from gemma_mlx.inputs.pauses import HOP_SAMPLES
from gemma_mlx.inputs.waveform import SAMPLE_RATE_HZ, SAMPLES_PER_FRAME
from gemma_mlx.tasks.loops import MOST_CHARACTERS_PER_S, Loop, LoopWatch
from gemma_mlx.tasks.message import user_message
from gemma_mlx.tasks.transcription import Wanted
from gemma_mlx.tasks.windows import quietest

Samples = NDArray[np.float32]
Doubt = Literal["loop", "cut off", "low log-probability", "speech without text", "too much text", "no translation"]

LOW_LOGPROB = -1.0
"""Below this mean, a token is on average less likely than one in e."""
RETRY_TEMPERATURE = 0.4
_DRAWN_FROM = 64
"""generation_config.json: top_k. So the log-probability of a token that chance took is among those asked for."""
_SHORTEST_HALF_S = 0.5
_SURELY_SPOKEN_S = 0.5
COUNTS = ("audio_tokens", "prompt_tokens", "reused_tokens", "generated_tokens", "drafted_tokens", "accepted_tokens")


@dataclass(frozen=True)
class Heard:
    """What was made of one window. `said` is what was said, where `text` is its translation."""

    text: str
    said: str | None = None
    doubts: tuple[Doubt, ...] = ()
    mean_logprob: float | None = None
    """Of the tokens as they were chosen, by the model itself; None where there is none."""
    counts: Mapping[str, int] = field(default_factory=dict)
    """Tokens by their kind, of all attempts."""
    tokens: tuple[int, ...] = ()
    logprobs: tuple[tuple[tuple[int, float], ...], ...] = ()
    attempts: int = 0
    """How often the model was asked: more than once where there was a loop."""
    decoding_s: float = field(default=0.0, compare=False)
    """From the first token of an attempt to its last, of all attempts."""
    peak_memory_bytes: int = field(default=0, compare=False)


@dataclass(frozen=True)
class _Attempt:
    answer: str
    reply: Reply
    loop: Loop | None
    kept_tokens: int
    """How many of the reply's are `answer`: all, but for those of a loop that it leaves out."""

    @property
    def tokens(self) -> tuple[int, ...]:
        return self.reply.tokens[: self.kept_tokens]

    @property
    def logprobs(self) -> tuple[tuple[tuple[int, float], ...], ...]:
        return self.reply.logprobs[: self.kept_tokens]


class StoppedError(Exception):
    """Nobody wants the rest any more."""


class Listener:
    """Asks the same of each window: the prompt before the sound is computed once, for all of them."""

    def __init__(
        self,
        gemma: Gemma,
        wanted: Wanted,
        *,
        max_tokens: int,
        draft: DraftMode = "auto",
        logprobs: int = 0,
        stopped: Callable[[], bool] = lambda: False,
    ) -> None:
        """`logprobs` is how many of the likeliest tokens of each place are wanted; `stopped` is asked at each token."""
        self._gemma = gemma
        self._stopped = stopped
        self._wanted = wanted
        self._max_tokens = max_tokens
        self._draft: DraftMode = draft
        self._logprobs = logprobs
        self._session = gemma.session()
        self._shared = [user_message(wanted.prompt)]
        self.prompt_tokens = len(gemma.prompts.build(self._shared))
        """What a prompt has without a sound."""
        self._primed = False

    def hear(self, samples: Samples, spoken_s: float) -> Heard:
        """What is said in `samples`, in which somebody speaks for `spoken_s`.

        A loop is tried again in two halves, cut at the quietest place, and then with some chance; if it stays, the
        text ends where it begins. The answer to the same samples is the same, whatever was heard before.

        Raises StoppedError at the first token after `stopped` says so.
        """
        first = self._attempt(samples)
        attempts, used = [first], [first]
        if first.loop is not None:
            for sounds, temperature in ((_halves(samples), 0.0), ([samples], RETRY_TEMPERATURE)):
                again = [self._attempt(sound, temperature) for sound in sounds]
                attempts += again
                if again and not any(attempt.loop for attempt in again):
                    used = again
                    break
        return self._heard(used, attempts, len(samples) / SAMPLE_RATE_HZ, spoken_s)

    def _attempt(self, samples: Samples, temperature: float = 0.0) -> _Attempt:
        self._prime()
        watch, loop, text = LoopWatch(len(samples) / SAMPLE_RATE_HZ), None, ""
        places: list[int] = []  # in the text, of each token
        answer = self._gemma.stream(
            [user_message(self._wanted.prompt, sounds=[(samples, SAMPLE_RATE_HZ)])],
            sampling=self._sampling(temperature),
            max_tokens=self._max_tokens,
            logprobs=max(_DRAWN_FROM if temperature else 1, self._logprobs),
            session=self._session,
            shared_messages=self._shared,
            draft=self._draft,
        )
        steps = iter(answer)
        try:
            for step in steps:
                if self._stopped():
                    raise StoppedError
                places.append(len(text))
                if step.channel == "answer":
                    text += step.text
                    loop = watch.push(step.text)
                if loop is not None:
                    break
        finally:
            close = getattr(steps, "close", None)
            if close is not None:
                close()
        if loop is None:
            return _Attempt(text, answer.reply, None, len(places))
        return _Attempt(text[: loop.kept], answer.reply, loop, sum(place < loop.kept for place in places))

    def _sampling(self, temperature: float) -> Sampling:
        chance = {"seed": 0} if temperature else {}
        return self._gemma.sampling(temperature=temperature, **chance)

    def _prime(self) -> None:
        """Computes what all prompts begin with, so that the first window is computed as every later one is."""
        if not self._primed:
            silence = np.zeros(SAMPLES_PER_FRAME, dtype=np.float32)
            asked = [user_message(self._wanted.prompt, sounds=[(silence, SAMPLE_RATE_HZ)])]
            greedy = self._sampling(0.0)
            self._gemma.reply(asked, sampling=greedy, max_tokens=1, session=self._session, draft="off")
            self._primed = True

    def _heard(self, used: list[_Attempt], attempts: list[_Attempt], sound_s: float, spoken_s: float) -> Heard:
        read = [self._wanted.read(attempt.answer) for attempt in used]
        text = " ".join(text for text, _ in read if text)
        said = [said for _, said in read if said is not None]
        chosen = [
            dict(best).get(token, best[-1][1])
            for attempt in used
            for token, best in zip(attempt.tokens, attempt.logprobs, strict=True)
        ]
        mean = round(sum(chosen) / len(chosen), 2) if chosen else None
        found: dict[Doubt, bool] = {
            "loop": any(attempt.loop for attempt in used),
            "cut off": any(attempt.reply.finish_reason == "length" for attempt in used),
            "low log-probability": bool(text) and mean is not None and mean < LOW_LOGPROB,
            "speech without text": not text and spoken_s >= _SURELY_SPOKEN_S,
            "too much text": len(text) > MOST_CHARACTERS_PER_S * max(1.0, sound_s),
            "no translation": self._wanted.target is not None and bool(text) and not said,
        }
        counts: Counter[str] = Counter()
        replies, wanted = [attempt.reply for attempt in attempts], self._logprobs
        for reply in replies:
            counts.update({name: getattr(reply, name) for name in COUNTS})
        return Heard(
            text=text,
            said=" ".join(said) if said else None,
            doubts=tuple(doubt for doubt, is_so in found.items() if is_so),
            mean_logprob=mean,
            counts=dict(counts),
            attempts=len(attempts),
            decoding_s=sum((r.generated_tokens - 1) / r.generation_tps for r in replies if r.generation_tps),
            peak_memory_bytes=max(r.peak_memory_bytes for r in replies),
            tokens=tuple(token for attempt in used for token in attempt.tokens) if wanted else (),
            logprobs=tuple(best[:wanted] for attempt in used for best in attempt.logprobs) if wanted else (),
        )


def _halves(samples: Samples) -> list[Samples]:
    """`samples` in two, cut at the quietest place; nothing where there is too little to cut."""
    if len(samples) < 4 * _SHORTEST_HALF_S * SAMPLE_RATE_HZ:
        return []
    cut = quietest(samples) * HOP_SAMPLES
    return [samples[:cut], samples[cut:]]
