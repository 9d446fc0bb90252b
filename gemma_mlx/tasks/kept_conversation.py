"""A conversation that is kept on the disk, new or gone on with."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from gemma_mlx.errors import UsageError
from gemma_mlx.gemma import Gemma
from gemma_mlx.tasks.chat_media import prepare_again
from gemma_mlx.tasks.conversation import Conversation
from gemma_mlx.tasks.kept_chat import KeptChat
from gemma_mlx.tasks.kept_chats import has_chat, latest_chat, new_chat, open_chat
from gemma_mlx.tasks.turn import Settings


@dataclass(frozen=True)
class Chosen:
    """Which chat is wanted: the latest one, one by its name (begun where there is none), else a new one."""

    resume: bool = False
    name: str | None = None
    save: bool = True


def kept_chat(chosen: Chosen) -> KeptChat | None:
    """The place on the disk of the chat that is wanted; None where nothing is to be kept. No model is needed.

    UsageError where there is no such chat or name, or one is wanted that is not to be kept; GemmaError where another
    process has it.
    """
    if not chosen.save:
        if chosen.resume or chosen.name is not None:
            raise UsageError("a chat that is not saved can be neither resumed nor named; leave --no-save out")
        return None
    if chosen.resume:
        return latest_chat() if chosen.name is None else open_chat(chosen.name)
    return open_chat(chosen.name) if chosen.name is not None and has_chat(chosen.name) else new_chat(chosen.name)


def kept_conversation(
    gemma: Gemma, kept: KeptChat | None, asked: Settings | None = None, **options: Any
) -> tuple[Conversation, list[str]]:
    """The conversation in `kept` with its turns, media, settings and warm caches, and the lines to be said about it.

    What `asked` sets holds from now on instead of what was kept, where it sets anything. `options` are those of
    `Conversation`: `sampling`, `max_tokens`, `draft`. On the model's thread.
    """
    asked = asked or Settings()
    if kept is None:
        return Conversation(gemma, **vars(asked), **options), []
    record = kept.record
    before = record.settings
    settings = replace(
        before,
        system=before.system if asked.system is None else asked.system,
        thinking=asked.thinking or before.thinking,
        detail=before.detail if asked.detail is None else asked.detail,
    )
    session, why_cold = kept.cache.resume(gemma)
    conversation = Conversation(gemma, **vars(settings), record=kept, session=session, **options)
    conversation.turns = list(record.turns.values())
    notes = [f"{record.passed_over} damaged lines of the chat are passed over"] if record.passed_over else []
    unanswered = [record.unanswered] if record.unanswered else []
    media = [item for turn in [*conversation.turns, *unanswered] for item in turn.attached]
    notes += [note for note in map(prepare_again, media) if note]
    if record.unanswered is not None:
        conversation.unsent_text = record.unanswered.text
        conversation.waiting = [item for item in record.unanswered.attached if item.media is not None]
    return conversation, [*notes, *([why_cold] if why_cold else [])]
