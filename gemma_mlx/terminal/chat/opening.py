"""How a chat was asked for on the command line, and the conversations that are opened so: at first, again, another."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from gemma_mlx.errors import UsageError
from gemma_mlx.home import find_model
from gemma_mlx.terminal.loading import Teller, load_gemma
from gemma_mlx.terminal.options import DraftMode, Drawing

if TYPE_CHECKING:
    from gemma_mlx.decoding.thinking import Thinking
    from gemma_mlx.gemma import Gemma
    from gemma_mlx.inputs.image import Budget
    from gemma_mlx.tasks.conversation import Conversation
    from gemma_mlx.tasks.kept_chat import KeptChat
    from gemma_mlx.tasks.turn import Settings


@dataclass(frozen=True)
class Opening:
    """The flags of a chat. Its methods load and compute: on a screen they are called in the model's thread."""

    model: str | None
    context_tokens: int | None
    kv_bits: int | None
    drafter: str | None
    draft: DraftMode
    adapter: str | None
    drawing: Drawing
    system: str | None
    thinking: Thinking
    detail: Budget | None
    max_tokens: int
    resume: bool
    session: str | None
    save: bool

    def first(self, teller: Teller) -> Conversation:
        """The chat that is wanted, with the model that the flags name and what else they set."""
        from gemma_mlx.tasks.kept_conversation import Chosen, kept_chat
        from gemma_mlx.tasks.turn import Settings

        kept = kept_chat(Chosen(self.resume, self.session, self.save))
        asked = Settings(self.system, self.thinking, self.detail)
        return self._in(self._loaded(self.model, teller), kept, asked, teller)

    def another(self, before: Conversation, name: str | None, teller: Teller) -> Conversation:
        """With the same model, the chat called `name`, or without a name a new one with the settings of `before`.

        Errors as of `open_chat`, and then `before` is still open.
        """
        from gemma_mlx.tasks.kept_chats import new_chat, open_chat

        if name is not None and before.record is not None and name == before.record.name:
            raise UsageError(f"the chat {name!r} is this one; /sessions lists the others")
        kept = open_chat(name) if name is not None else new_chat() if before.record is not None else None
        before.close()
        for note in before.take_notes():
            teller.say(note)
        return self._in(before.gemma, kept, before.settings if name is None else None, teller)

    @staticmethod
    def check(folder: str) -> None:
        """GemmaError where there is no model in `folder`; before anything is let go of for it."""
        from gemma_mlx.config import read_config

        read_config(find_model(folder))

    def with_model(self, folder: str, left: Left, teller: Teller) -> Conversation:
        """What was `left`, going on with the model in `folder`."""
        from gemma_mlx.tasks.kept_chats import new_chat, open_chat

        gemma = self._loaded(folder, teller)
        kept = (
            open_chat(left.name)
            if left.name is not None and left.begun
            else new_chat(left.name)
            if left.is_kept
            else None
        )
        conversation = self._in(gemma, kept, left.settings, teller)
        if not left.begun:
            conversation.take_over(left.turns)
        return conversation

    def _loaded(self, model: str | None, teller: Teller) -> Gemma:
        return load_gemma(
            model,
            teller,
            context_tokens=self.context_tokens,
            kv_bits=self.kv_bits,
            drafter=self.drafter,
            draft=self.draft,
            adapter=self.adapter,
        )

    def _in(self, gemma: Gemma, kept: KeptChat | None, settings: Settings | None, teller: Teller) -> Conversation:
        from gemma_mlx.tasks.kept_conversation import kept_conversation

        sampling = self.drawing.sampling(gemma)
        conversation, notes = kept_conversation(
            gemma, kept, settings, sampling=sampling, max_tokens=self.max_tokens, draft=self.draft
        )
        for note in notes:
            teller.say(note)
        return conversation


class Left:
    """What stays of a conversation whose model is let go of, so that another one has the memory."""

    def __init__(self, conversation: Conversation, teller: Teller) -> None:
        """Closes `conversation`; what is lost by that is told."""
        from gemma_mlx.tasks.kept_chats import has_chat

        self.model = str(conversation.gemma.folder)
        self.turns = conversation.turns
        self.settings = conversation.settings
        self.is_kept = conversation.record is not None
        conversation.close()
        for note in conversation.take_notes():
            teller.say(note)
        self.name = conversation.record.name if conversation.record is not None else None
        self.begun = self.name is not None and has_chat(self.name)
