"""A conversation of several turns: messages, media waiting to be sent, and the caches behind them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

from PIL import Image

from gemma_mlx.answer import Answer, Reply
from gemma_mlx.decoding.sampling import Sampling
from gemma_mlx.decoding.session import Session
from gemma_mlx.decoding.speculate import DraftMode
from gemma_mlx.decoding.thinking import Thinking
from gemma_mlx.errors import UsageError
from gemma_mlx.gemma import MAX_TOKENS, Gemma
from gemma_mlx.inputs.image import Budget
from gemma_mlx.inputs.media import MediaKind
from gemma_mlx.inputs.video import MAX_FRAME_TOKENS
from gemma_mlx.tasks.kept_chat import KeptChat
from gemma_mlx.tasks.turn import Attached, Samples, Settings, Turn, attached

_MADE_UP_NAMES: dict[MediaKind, str] = {"image": "picture", "audio": "sound", "video": "video"}
_NOT_FIGURES = ("text", "thought", "tokens", "logprobs")
_SEEDS = 1 << 32


class Conversation:
    """What has been said, and what will go out with the next message.

    `ask` then `keep` make a turn. A turn that failed or was stopped before its first word is simply not kept: the
    messages and the waiting media are as before, so that it can be sent again.

    With a `record`, each message, answer, setting and turn taken back is on the disk when the method that made it
    returns; where the disk does not let us, `take_notes` says so and the next one tries again.
    """

    def __init__(
        self,
        gemma: Gemma,
        *,
        system: str | None = None,
        thinking: Thinking = False,
        detail: Budget | None = None,
        sampling: Sampling | None = None,
        max_tokens: int = MAX_TOKENS,
        draft: DraftMode = "auto",
        record: KeptChat | None = None,
        session: Session | None = None,
    ) -> None:
        self.waiting: list[Attached] = []
        """What goes out with the next message; each may be removed."""
        self.turns: list[Turn] = []
        self.unsent_text = ""
        """A message of a resumed chat that no answer came to, for the input line; its media are `waiting`."""
        self.record = record
        self._settings = Settings(system, thinking, detail)
        self._gemma = gemma
        self._sampling = sampling
        self._max_tokens = max_tokens
        self._draft = draft
        self._asked = Turn("")
        self._again = False  # what was asked last takes the place of the last turn
        self._retries = 0
        self._session = session or gemma.session()
        self._notes: list[str] = []

    @property
    def settings(self) -> Settings:
        """How the next message is asked."""
        return self._settings

    @settings.setter
    def settings(self, settings: Settings) -> None:
        self._settings = settings
        if self.record is not None:
            self._note(self.record.set_settings(settings))

    @property
    def system(self) -> str | None:
        return self._settings.system

    @system.setter
    def system(self, text: str | None) -> None:
        self.settings = replace(self._settings, system=text)

    @property
    def thinking(self) -> Thinking:
        return self._settings.thinking

    @thinking.setter
    def thinking(self, thinking: Thinking) -> None:
        self.settings = replace(self._settings, thinking=thinking)

    @property
    def detail(self) -> Budget | None:
        return self._settings.detail

    @detail.setter
    def detail(self, detail: Budget | None) -> None:
        self.settings = replace(self._settings, detail=detail)

    @property
    def gemma(self) -> Gemma:
        return self._gemma

    @property
    def messages(self) -> list[dict[str, Any]]:
        """All that the model gets to see of the turns so far."""
        return self._history(self.turns)

    @property
    def context_tokens(self) -> int:
        """How many positions the plan has in all."""
        return self._gemma.plan.context_tokens

    @property
    def used_tokens(self) -> int:
        """How many of them the turns so far take: the last prompt and what was generated behind it."""
        if not self.turns:
            return 0
        figures = self.turns[-1].figures
        return int(figures.get("prompt_tokens", 0)) + int(figures.get("generated_tokens", 0))

    def attach(self, kind: MediaKind, source: Path | Image.Image | Samples, name: str = "") -> Attached:
        """Prepares a picture, a sound or a video, to go out with the next message. InputError if it cannot be read.

        `name` is what a person is told it is called; a file has its own.
        """
        found = self.prepared(kind, source, name)
        self.waiting.append(found)
        return found

    def prepared(self, kind: MediaKind, source: Path | Image.Image | Samples, name: str = "") -> Attached:
        """As `attach`, but it is for the caller to put it into `waiting`. May run in any thread."""
        usual = MAX_FRAME_TOKENS if kind == "video" else self._gemma.prompts.max_soft_tokens
        name = name or (source.name if isinstance(source, Path) else _MADE_UP_NAMES[kind])
        return attached(kind, source, name, self.detail or usual)

    def ask(self, text: str, progress: Callable[[int, int], None] | None = None) -> Answer:
        """The answer to `text` and the waiting media, to be iterated over. Raises as `Gemma.stream` does."""
        turn = Turn(text, tuple(self.waiting), self._settings, datetime.now().astimezone().isoformat("T", "seconds"))
        answer = self._answer(self.turns, turn, self._sampling, progress)
        self._asked, self._again, self._retries = turn, False, 0
        if self.record is not None:
            self._note(self.record.ask(turn))
        return answer

    def retry(self, progress: Callable[[int, int], None] | None = None) -> Answer:
        """Asks the last message again, with the settings of now; `keep` puts the new answer in the old one's place.

        A fixed seed moves on by one with each retry. UsageError where there is no message, or the answer is bound to
        be the same: nothing is drawn, and nothing was cut short or set otherwise since.
        """
        if not self.turns:
            raise UsageError("there is no message to ask again; write one")
        last = self.turns[-1]
        sampling = self._sampling or self._gemma.sampling()
        ended = last.figures.get("finish_reason") == "stop" and last.figures.get("model") == self._gemma.name
        asked_alike = replace(last.settings, detail=None) == replace(self._settings, detail=None)
        if sampling.temperature == 0 and ended and asked_alike:
            raise UsageError("greedy decoding gives the same answer again; /edit the message, or start with -t above 0")
        if sampling.seed is not None:
            sampling = replace(sampling, seed=(sampling.seed + self._retries + 1) % _SEEDS)
        turn = replace(last, settings=self._settings, answer="", thought="", figures={})
        answer = self._answer(self.turns[:-1], turn, sampling, progress)
        self._asked, self._again, self._retries = turn, True, self._retries + 1
        return answer

    def keep(self, reply: Reply) -> bool:
        """Adds the turn last asked to the conversation, cut short or not; False if the answer holds no text."""
        if not reply.text.strip():
            return False
        figures = {name: value for name, value in vars(reply).items() if name not in _NOT_FIGURES}
        turn = replace(self._asked, answer=reply.text, thought=reply.thought, figures=figures)
        if self._again:
            self.turns[-1] = turn
        else:
            self.turns.append(turn)
            self.waiting = [item for item in self.waiting if item not in turn.attached]
        if self.record is not None:
            self._note(self.record.answer(turn, self._again))
        return True

    def take_over(self, turns: Sequence[Turn]) -> None:
        """Goes on after `turns`, which were said in another conversation and are kept as said in this one."""
        self.turns = [*turns]
        if self.record is not None:
            for turn in turns:
                self._note(self.record.ask(turn))
                self._note(self.record.answer(turn))

    def undo(self) -> Turn | None:
        """Takes the last turn back and returns it; None where there is none."""
        if not self.turns:
            return None
        turn = self.turns.pop()
        self._retries = 0
        if self.record is not None:
            self._note(self.record.forget_last())
        return turn

    def edit(self) -> Turn | None:
        """Takes the last turn back; its media wait again, its text is for the input line. None where there is none."""
        turn = self.undo()
        if turn is not None:
            self.waiting = [*turn.attached, *self.waiting]
        return turn

    def take_notes(self) -> list[str]:
        """The lines that must be said about what is kept on the disk, each once."""
        notes, self._notes = self._notes, []
        return notes

    def save_cache_if_due(self) -> None:
        """After a turn: saves the warm cache where losing it would cost a long prefill. On the model's thread."""
        if self.record is not None and self.record.cache.is_due(self._session):
            self._note(self.record.save_cache(self._gemma, self._session))

    def close(self) -> None:
        """At leaving: saves the warm cache, and lets another process have the chat. On the model's thread.

        The caches are let go of: whoever still holds the conversation holds no memory of the next one's.
        """
        if self.record is not None:
            self._note(self.record.save_cache(self._gemma, self._session))
            self._note(self.record.close())
        self._session.reset()

    def _answer(
        self, before: list[Turn], turn: Turn, sampling: Sampling | None, progress: Callable[[int, int], None] | None
    ) -> Answer:
        """The session can then go back to where the turn begins, to ask something else in its place."""
        history = self._history(before)
        return self._gemma.stream(
            [*history, turn.message],
            sampling=sampling,
            max_tokens=self._max_tokens,
            thinking=self.thinking,
            session=self._session,
            shared_messages=history if before else (),
            draft=self._draft,
            progress=progress,
        )

    def _history(self, turns: list[Turn]) -> list[dict[str, Any]]:
        system = [{"role": "system", "content": self.system}] if self.system else []
        return [*system, *(message for turn in turns for message in turn.messages)]

    def _note(self, line: str | None) -> None:
        if line is not None and line not in self._notes:
            self._notes.append(line)
