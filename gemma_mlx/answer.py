"""An answer on its way, token by token, and what is known of it at the end."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import mlx.core as mx

from gemma_mlx.decoding.channels import Channel, ChannelReader
from gemma_mlx.decoding.constrained import Constraint, generate_constrained
from gemma_mlx.decoding.generate import Token, generate
from gemma_mlx.decoding.sampling import Sampler, Sampling
from gemma_mlx.decoding.session import Session
from gemma_mlx.decoding.speculate import Drafting, Tally, speculate
from gemma_mlx.decoding.thinking import Thoughts, write_for_model
from gemma_mlx.inputs.prompt import Prompt
from gemma_mlx.inputs.tokenizer import TextStream
from gemma_mlx.soft_tokens import soft_tokens

if TYPE_CHECKING:
    from gemma_mlx.gemma import Gemma

RESERVED_TOKENS = 4096
"""Room made in the caches for an answer; a longer one makes more when it comes to it."""


@dataclass(frozen=True)
class Step:
    """One generated token, with the text that it completed (perhaps none)."""

    token: int
    text: str
    channel: Channel
    logprobs: tuple[tuple[int, float], ...] = ()


@dataclass(frozen=True)
class Reply:
    """An answer and what it took. `finish_reason` is "stop", "length", "closed" or "interrupted".

    "closed" is an answer under a grammar that was brought to its end to fit: whole, but with less in it.
    """

    text: str
    thought: str
    finish_reason: str
    model: str
    miniature: bool
    tokens: tuple[int, ...]
    """The generated ids, the one that ended the answer included."""
    logprobs: tuple[tuple[tuple[int, float], ...], ...]
    prompt_tokens: int
    reused_tokens: int
    image_tokens: int
    audio_tokens: int
    video_tokens: int
    generated_tokens: int
    thought_tokens: int
    """Those of `tokens` that are thought: between the two channel tokens, less what a budget wrote for the model."""
    drafted_tokens: int
    accepted_tokens: int
    target_passes: int
    """Passes of the model after those over the prompt. Without drafts, one for each token but the first; what a budget
    of thoughts wrote takes one together."""
    draft_gain: float | None
    """How many times as fast as without drafts it came: what its tokens would have taken at the time of an undrafted
    round, as last measured here, by what they took. None where nobody could draft or nothing was measured."""
    time_to_first_token_s: float
    generation_tps: float
    peak_memory_bytes: int


class Answer:
    """An answer on its way: iterate over it once, for a `Step` per token. Stopping early leaves the session ready."""

    def __init__(
        self,
        gemma: Gemma,
        prompt: Prompt,
        *,
        stable_tokens: Sequence[int],
        sampling: Sampling,
        max_tokens: int,
        logprobs: int,
        session: Session,
        drafting: Drafting | None,
        constraint: Constraint | None,
        thinking_budget: int | None,
        progress: Callable[[int, int], None] | None,
    ) -> None:
        self.prompt = prompt
        self._gemma = gemma
        self._session = session
        self._stable_tokens = stable_tokens
        self._sampling = sampling
        self._max_tokens = max_tokens
        self._logprobs = logprobs
        self._drafting = drafting
        self._constraint = constraint
        self._progress = progress
        special = gemma.prompts.tokenizer.special
        self._thoughts = Thoughts(special.channel_open, special.channel_close, thinking_budget)
        self._written_tokens = 0
        self._undrafted_s: float | None = None
        self._steps: list[Step] = []
        self._reused_tokens = 0
        self._peak_bytes = 0
        self._started_s = time.perf_counter()
        self._first_s = self._last_s = self._started_s

    def __iter__(self) -> Iterator[Step]:
        with self._gemma.plan.limits():
            yield from self._steps_as_they_come()

    def _steps_as_they_come(self) -> Iterator[Step]:
        gemma, session = self._gemma, self._session
        mx.reset_peak_memory()
        hidden, self._reused_tokens = session.prefill(
            self.prompt.ids,
            soft_tokens(gemma.model, self.prompt.spans),
            stable_tokens=self._stable_tokens,
            reserve_tokens=min(self._max_tokens, RESERVED_TOKENS),
            progress=self._progress,
        )
        turn = session.turn
        try:
            for step in self._read(self._decode(hidden)):
                self._last_s = time.perf_counter()
                if not self._steps:
                    self._first_s = self._last_s
                self._steps.append(step)
                yield step
        finally:
            session.append([step.token for step in self._steps], turn)
            self._peak_bytes = mx.get_peak_memory()
            self._undrafted_s = self._drafting.rule.undrafted_s if self._drafting else None

    def _decode(self, hidden: mx.array) -> Iterator[Token]:
        """The tokens that follow the prompt's last hidden state, with what the budget of thoughts writes."""
        tokens: list[int] = []
        self._thoughts.skip(self.prompt.ids)
        for token in self._draw(hidden, self._sampling, tokens):
            tokens.append(token.id)
            self._thoughts.take(token.id)
            yield token
            ended = token.id in self._gemma.stop_ids or len(tokens) == self._max_tokens
            if self._thoughts.spent and not ended:
                break
        else:
            return
        written, hidden = self._close_thought(tokens)
        yield from written
        tokens += [token.id for token in written]
        if len(tokens) < self._max_tokens:
            opens = self._gemma.prompts.tokenizer.special.channel_open
            suppressed = (*self._sampling.suppress_tokens, opens)
            yield from self._draw(hidden, replace(self._sampling, suppress_tokens=suppressed), tokens)

    def _close_thought(self, tokens: list[int]) -> tuple[list[Token], mx.array]:
        """Writes the end of the thought that `tokens` stop in, as the chat template does: on a line of its own."""
        tokenizer, place = self._gemma.prompts.tokenizer, len(self.prompt) + len(tokens)
        ids = [tokenizer.special.channel_close]
        if not tokenizer.decode(tokens[-1:]).endswith("\n"):
            ids = [*tokenizer.encode("\n"), *ids]
        left = self._max_tokens - len(tokens)
        if self._constraint is not None:
            ids = ids[-(left - self._constraint.reserved_tokens) :]
            self._constraint.close_thought()
        ids = ids[:left]
        self._written_tokens = len(ids)
        if self._drafting is not None:
            self._drafting.tally.passes += 1
            if self._drafting.lookup is not None:  # it may have seen a draft to its end
                self._drafting.lookup.keep(place)
                self._drafting.lookup.extend(ids)
        gemma = self._gemma
        return write_for_model(gemma.model, self._session.caches, place - 1, tokens[-1], ids, self._logprobs)

    def _draw(self, hidden: mx.array, sampling: Sampling, tokens: Sequence[int]) -> Iterator[Token]:
        """Tokens from a hidden state on; `tokens` of the answer are there already."""
        gemma, left = self._gemma, self._max_tokens - len(tokens)
        sampler = Sampler(sampling, gemma.config.text.vocab_size, [*self.prompt.ids, *tokens], drawn=len(tokens))
        given = (gemma.model, self._session.caches, hidden, sampler, gemma.stop_ids, left, self._logprobs)
        if self._constraint is not None:
            return generate_constrained(*given, constraint=self._constraint)
        return generate(*given) if self._drafting is None else speculate(*given, drafting=self._drafting)

    def _read(self, tokens: Iterable[Token]) -> Iterator[Step]:
        """Tokens with their text and channel; what is held back of a character comes with the last one."""
        tokenizer = self._gemma.prompts.tokenizer
        special = tokenizer.special
        reader = ChannelReader(TextStream(tokenizer), special.channel_open, special.channel_close)
        reader.skip(self.prompt.ids)
        for count, token in enumerate(tokens, start=1):
            channel, text = reader.push(token.id)
            if token.id in self._gemma.stop_ids or count == self._max_tokens:
                text += reader.flush()[1]
            yield Step(token.id, text, channel, token.logprobs)

    @property
    def reply(self) -> Reply:
        """The answer as far as it has come, with its figures."""
        steps = self._steps
        if steps and steps[-1].token in self._gemma.stop_ids:
            finish_reason = "closed" if self._constraint and self._constraint.closed_early else "stop"
        else:
            finish_reason = "length" if len(steps) == self._max_tokens else "interrupted"
        undrafted = Tally(passes=max(0, len(steps) - 1 - self._written_tokens))
        tally = self._drafting.tally if self._drafting else undrafted
        decoding_s = self._last_s - self._first_s
        tokens_per_s = (len(steps) - 1) / decoding_s if decoding_s > 0 else 0.0
        return Reply(
            text="".join(step.text for step in steps if step.channel == "answer"),
            thought="".join(step.text for step in steps if step.channel == "thought").strip(),
            finish_reason=finish_reason,
            model=self._gemma.name,
            miniature=self._gemma.miniature,
            tokens=tuple(step.token for step in steps),
            logprobs=tuple(step.logprobs for step in steps),
            prompt_tokens=len(self.prompt),
            reused_tokens=self._reused_tokens,
            image_tokens=self.prompt.image_tokens,
            audio_tokens=self.prompt.audio_tokens,
            video_tokens=self.prompt.video_tokens,
            generated_tokens=len(steps),
            thought_tokens=self._thoughts.tokens,
            drafted_tokens=tally.drafted_tokens,
            accepted_tokens=tally.accepted_tokens,
            target_passes=tally.passes,
            draft_gain=tokens_per_s * self._undrafted_s if tokens_per_s and self._undrafted_s else None,
            time_to_first_token_s=self._first_s - self._started_s,
            generation_tps=tokens_per_s,
            peak_memory_bytes=self._peak_bytes,
        )
