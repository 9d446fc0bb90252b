"""Gemma: the model, its tokenizer and template, and the preparation of media, put together.

    from gemma_mlx import load

    gemma = load()
    reply = gemma.reply([{"role": "user", "content": "Hello"}])
    print(reply.text)

A message is what chat APIs take: a role, and a string or a list of parts (`gemma_mlx.inputs.parts`).
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import mlx.core as mx

from gemma_mlx.answer import Answer, Reply
from gemma_mlx.config import Config
from gemma_mlx.decoding.constrained import Constraint
from gemma_mlx.decoding.costs import Drafter
from gemma_mlx.decoding.depth import DepthController
from gemma_mlx.decoding.json_grammar import JsonGrammar
from gemma_mlx.decoding.sampling import Sampling
from gemma_mlx.decoding.saved_session import Identity, UnusableError, resume, save
from gemma_mlx.decoding.scoring import logits_of, logprobs_of
from gemma_mlx.decoding.session import Session
from gemma_mlx.decoding.speculate import DepthRule, DraftMode
from gemma_mlx.decoding.thinking import Thinking, thinking_budget
from gemma_mlx.draft_choice import check_draft, drafting_after
from gemma_mlx.errors import CheckpointError, ContextError, GemmaWarning, InputError, UsageError
from gemma_mlx.generation_config import read_generation_config
from gemma_mlx.inputs.image import BUDGETS, Budget
from gemma_mlx.inputs.media import MEDIA_TYPES
from gemma_mlx.inputs.parts import with_sound_tracks
from gemma_mlx.inputs.prompt import Prompt, PromptBuilder
from gemma_mlx.memory import Plan
from gemma_mlx.memory_limits import MemoryUse, memory_use
from gemma_mlx.model.gemma4 import Gemma4
from gemma_mlx.soft_tokens import soft_tokens

MAX_TOKENS = 2048
"""How long an answer may get when nobody says so."""

Messages = Sequence[Mapping[str, Any]]


@dataclass(frozen=True)
class Score:
    """How likely the model finds an answer: its ids, and the log-probability of each."""

    tokens: tuple[int, ...]
    logprobs: tuple[float, ...]


class Gemma:
    """A loaded model. `stream` and `reply` answer messages, `score` judges an answer."""

    def __init__(
        self,
        folder: Path,
        config: Config,
        prompts: PromptBuilder,
        model: Gemma4,
        plan: Plan,
        identity: Identity,
        drafter: Drafter | None = None,
    ) -> None:
        self.folder = folder
        self.config = config
        self.prompts = prompts
        self.model = model
        self.plan = plan
        self.drafter = drafter
        self.depth_rule: DepthRule = DepthController()
        """Says how much to draft, and learns from all answers."""
        self.identity = identity
        """Tells its weights, its template and this code from others."""
        self._generation = read_generation_config(folder, config.text.vocab_size)
        special = prompts.tokenizer.special
        self.stop_ids = frozenset([special.eos, special.turn_close, *self._generation.eos_token_ids])
        self._check_sizes()

    def _check_sizes(self) -> None:
        """The device reads past the end of a table without a word, so what indexes into one is checked here."""
        highest_id, vocab_size = self.prompts.tokenizer.highest_id, self.config.text.vocab_size
        if highest_id >= vocab_size:
            raise CheckpointError(
                f"the tokenizer in {self.folder} has ids up to {highest_id}, the model {vocab_size} rows; they are not "
                "of one model: copy the tokenizer again"
            )
        positions = self.config.vision.mm_posemb_size
        if positions < max(BUDGETS):
            raise CheckpointError(
                f"the model in {self.folder} knows {positions} patch positions, a picture can have {max(BUDGETS)}; "
                "download it again"
            )

    @property
    def name(self) -> str:
        return self.folder.resolve().name

    @property
    def adapter_digest(self) -> str:
        """Tells the adapter that it answers with from any other; empty without one."""
        return self.identity.adapter

    @property
    def miniature(self) -> bool:
        """Whether this is a toy of the architecture and not Gemma 4 12B."""
        return self.config.is_miniature

    def memory(self) -> MemoryUse:
        """What MLX holds now, and its limit; may be asked from any thread."""
        return memory_use(self.plan.limit_bytes)

    def sampling(self, **asked: float | int | None) -> Sampling:
        """The checkpoint's own sampling (`generation_config.json`) with what is `asked` for and not None in place."""
        given = cast("dict[str, Any]", {name: value for name, value in asked.items() if value is not None})
        return replace(self._generation.sampling, **given)

    def json_grammar(self, schema: Mapping[str, Any]) -> JsonGrammar:
        """What `stream` takes as `grammar` for answers that follow a JSON schema. UsageError for what it cannot do."""
        tokenizer = self.prompts.tokenizer
        end = tokenizer.special.turn_close
        return JsonGrammar(
            schema, tokenizer.to_json(), self.config.text.vocab_size, [end, *sorted(self.stop_ids - {end})]
        )

    def constraint(self, grammar: JsonGrammar, max_tokens: int, thinking: bool) -> Constraint:
        """What holds one answer to `grammar`. UsageError where not even the shortest fits `max_tokens`."""
        special = self.prompts.tokenizer.special
        return Constraint(grammar, max_tokens, (special.channel_open, special.channel_close) if thinking else None)

    def session(self) -> Session:
        """Caches for one conversation: hand it to each `stream` or `reply` of that conversation."""
        pace = self.plan.pace
        return Session(
            self.model,
            block_sizes=pace.block_sizes,
            kv_bits=self.plan.kv_bits,
            snapshots=pace.snapshots,
        )

    def save_session(self, session: Session, path: str | os.PathLike[str]) -> None:
        """Saves what `session` has cached in one safetensors file, for `resume_session` to go on from.

        The file is replaced whole or, also where this process is killed, left as it was. Raises GemmaError where it
        cannot be written, UsageError where `path` is no place for it or `session` is not of this model.
        """
        if not session.is_of(self.model):
            raise UsageError("the session is of another Gemma; save it with the one whose session() it comes from")
        with self._limits():
            save(session, Path(path), self.identity)

    def resume_session(self, path: str | os.PathLike[str]) -> Session:
        """The session saved at `path`. Where that cannot be used, an empty one and a GemmaWarning that says why."""
        session = self.session()
        try:
            with self._limits():
                resume(session, Path(path), self.identity, self.plan.context_tokens)
        except UnusableError as error:
            message = f"the session in {path} is not used: {error}; the prompt is computed anew"
            warnings.warn(message, GemmaWarning, stacklevel=2)
        return session

    @contextmanager
    def _limits(self) -> Iterator[None]:
        """The plan's limits, for work with whole layers; afterwards MLX keeps none of the memory that they took."""
        with self.plan.limits():
            try:
                yield
            finally:
                mx.clear_cache()

    def prepare(self, messages: Messages, detail: Budget | None = None) -> list[dict[str, Any]]:
        """`messages` with each picture, sound and video read and prepared, so that later turns need not do it again.

        `detail` is the most soft tokens that a picture may take: 70, 140, 280, 560, 1120 or "auto".
        """
        prepared = []
        for message in messages:
            if not isinstance(message, Mapping):
                raise InputError(f"a message is {type(message).__name__}, not an object with role and content")
            content = message.get("content")
            if isinstance(content, Sequence) and not isinstance(content, str):
                content = [self._prepare_part(part, detail) for part in with_sound_tracks(content)]
            prepared.append({**message, "content": content})
        return prepared

    def _prepare_part(self, part: Mapping[str, Any], detail: Budget | None) -> Mapping[str, Any]:
        kind = MEDIA_TYPES.get(part.get("type", "")) if isinstance(part, Mapping) else None
        return {"type": kind, kind: self.prompts.prepare(part, detail)} if kind else part

    def stream(
        self,
        messages: Messages,
        *,
        sampling: Sampling | None = None,
        max_tokens: int = MAX_TOKENS,
        thinking: Thinking = False,
        detail: Budget | None = None,
        logprobs: int = 0,
        session: Session | None = None,
        shared_messages: Messages = (),
        draft: DraftMode = "auto",
        grammar: JsonGrammar | None = None,
        progress: Callable[[int, int], None] | None = None,
    ) -> Answer:
        """Answers `messages`: iterate over it for steps, then ask it for its `reply`.

        With a `session`, only what is new since its last turn is computed. `shared_messages` are what other prompts
        will have in common with this one, such as the pictures without the question: the session can then go back to
        where they end. `thinking` as a number is the most tokens of thought, after which the answer follows; 0 is off.
        `draft` says who may draft tokens: it changes the speed, not the answer. With a `grammar` of `json_grammar`,
        the answer follows the schema, thoughts come before it, and nobody drafts.
        `progress` is told (done, all) positions of the prompt. Raises InputError for media or messages that cannot be
        read, ContextError for a prompt too long, UsageError where no answer of the grammar fits `max_tokens`.
        """
        if max_tokens < 1:
            raise UsageError(f"max_tokens is {max_tokens}, it must be at least 1")
        if logprobs < 0:
            raise UsageError(f"logprobs is {logprobs}, it must be 0 or more")
        most_thoughts, thinks = thinking_budget(thinking), bool(thinking)
        check_draft(draft, self.drafter, self.name)
        if session is not None and not session.is_of(self.model):
            raise UsageError("this session is of another model; take one of gemma.session()")
        prepared = self.prepare(messages, detail)
        prompt = self.prompts.build(prepared, thinking=thinks)
        room = self._room(len(prompt), 1)
        constraint = self.constraint(grammar, min(max_tokens, room), thinks) if grammar is not None else None
        drafting = None
        if constraint is None:  # under a grammar, each token decides what may follow
            drafting = drafting_after(prompt.ids, draft, self.depth_rule, self.drafter, self.prompts.tokenizer)
        stable_tokens = []
        if session is not None:  # what the next turn's prompt will begin with
            shared = [prepared, self.prepare(shared_messages, detail)] if shared_messages else [prepared]
            for history in shared:
                begun = self.prompts.build(history, thinking=thinks, add_generation_prompt=False)
                stable_tokens.append(prompt.shared_tokens(begun))
        return Answer(
            self,
            prompt,
            stable_tokens=stable_tokens,
            sampling=sampling or self.sampling(),
            max_tokens=min(max_tokens, room),
            logprobs=logprobs,
            session=session or self.session(),
            drafting=drafting,
            constraint=constraint,
            thinking_budget=most_thoughts,
            progress=progress,
        )

    def reply(self, messages: Messages, **options: Any) -> Reply:
        """The whole answer to `messages`; `options` are those of `stream`."""
        answer = self.stream(messages, **options)
        for _ in answer:
            pass
        return answer.reply

    def score(self, messages: Messages, answer: str) -> Score:
        """How likely the model finds `answer`, with the end of its turn, as the reply to `messages`."""
        prompt = self.prompts.build(self.prepare(messages))
        answer_ids = self.prompts.answer_ids(answer)
        return Score(answer_ids, tuple(logprobs_of(self.answer_logits(prompt, answer_ids), answer_ids)))

    def answer_logits(self, prompt: Prompt, answer_ids: Sequence[int]) -> Iterator[mx.array]:
        """The logits that predict each of `answer_ids` behind `prompt`: arrays [L, V] in float32 of a few positions
        each, in order. Let go of one array before the next. Raises ContextError where they are too long."""
        ids = [*prompt.ids, *answer_ids]
        if len(ids) > self.plan.context_tokens:
            raise ContextError(
                f"prompt and answer have {len(ids):,} tokens, more than the context of {self.plan.context_tokens:,}; "
                "shorten them"
            )
        with self.plan.limits():
            caches, media = self.model.make_caches(self.plan.kv_bits), soft_tokens(self.model, prompt.spans)
            yield from logits_of(self.model, caches, ids, media, len(prompt), self.plan.pace.block_sizes)

    def _room(self, prompt_tokens: int, needed_tokens: int) -> int:
        """How many tokens may follow a prompt. Raises ContextError where that is less than needed."""
        context = self.plan.context_tokens
        if context - prompt_tokens < needed_tokens:
            own = self.config.text.max_position_embeddings
            whose = "the model's context" if context == own else f"the context planned (of the model's {own:,})"
            raise ContextError(
                f"the prompt has {prompt_tokens:,} tokens and needs {needed_tokens:,} more, but {whose} is "
                f"{context:,}; shorten the text, or attach fewer or coarser pictures"
            )
        return context - prompt_tokens
