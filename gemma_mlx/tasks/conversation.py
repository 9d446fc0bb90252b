"""A conversation of several turns: messages, media waiting to be sent, and the caches behind them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

from gemma_mlx.answer import Answer, Reply
from gemma_mlx.decoding.sampling import Sampling
from gemma_mlx.decoding.speculate import DraftMode
from gemma_mlx.decoding.thinking import Thinking
from gemma_mlx.gemma import MAX_TOKENS, Gemma
from gemma_mlx.inputs.image import Budget
from gemma_mlx.inputs.media import Media, MediaKind
from gemma_mlx.tasks.message import user_message


class Conversation:
    """What has been said, and what will go out with the next message.

    `ask` then `keep` make a turn. A turn that failed or was stopped before its first word is simply not kept: the
    messages and the waiting media are as before, so that it can be sent again.
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
    ) -> None:
        self.system = system
        self.thinking = thinking
        """Whether the model thinks first; a number is the most tokens of thought."""
        self.detail = detail
        """The most soft tokens of a picture attached from now on; None for the checkpoint's own figure."""
        self.waiting: list[Media] = []
        self._gemma = gemma
        self._sampling = sampling
        self._max_tokens = max_tokens
        self._draft = draft
        self._turns: list[dict[str, Any]] = []
        self._asked: dict[str, Any] = {}
        self._session = gemma.session()

    @property
    def gemma(self) -> Gemma:
        return self._gemma

    @property
    def messages(self) -> list[dict[str, Any]]:
        """All that the model gets to see of the turns so far."""
        system = [{"role": "system", "content": self.system}] if self.system else []
        return [*system, *self._turns]

    @property
    def context_tokens(self) -> int:
        """How many positions the plan has in all."""
        return self._gemma.plan.context_tokens

    @property
    def used_tokens(self) -> int:
        """How many of them are taken: the last prompt and what was generated behind it."""
        return self._session.offset

    def attach(self, kind: MediaKind, path: Path) -> Media:
        """Reads a picture, a sound or a video, to go out with the next message. InputError if it cannot be read."""
        [message] = self._gemma.prepare([{"role": "user", "content": [{"type": kind, kind: path}]}], self.detail)
        media = cast("Media", message["content"][0][kind])
        self.waiting.append(media)
        return media

    def ask(self, text: str, progress: Callable[[int, int], None] | None = None) -> Answer:
        """The answer to `text` and the waiting media, to be iterated over. Raises as `Gemma.stream` does."""
        images, sounds, videos = (
            [media for media in self.waiting if media.kind == kind] for kind in ("image", "audio", "video")
        )
        self._asked = user_message(text, images, sounds, videos)
        return self._gemma.stream(
            [*self.messages, self._asked],
            sampling=self._sampling,
            max_tokens=self._max_tokens,
            thinking=self.thinking,
            session=self._session,
            draft=self._draft,
            progress=progress,
        )

    def keep(self, reply: Reply) -> bool:
        """Adds the turn last asked to the conversation, cut short or not; False if the answer holds no text."""
        if not reply.text.strip():
            return False
        self._turns += [self._asked, {"role": "assistant", "content": reply.text}]
        self.waiting = []
        return True

    def drop_waiting(self) -> list[Media]:
        """Takes back what was attached for the next message, and returns it."""
        dropped, self.waiting = self.waiting, []
        return dropped

    def reset(self) -> None:
        """Forgets what was said and what was waiting; the system message and the settings stay."""
        self._turns, self.waiting = [], []
        self._session.reset()
