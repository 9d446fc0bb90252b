"""Speech in a chat: heard by the model where it stands or, too far into the context, written down first.

The 12B is reported to lose sound that stands past 450 to 500 tokens from the beginning of the context, while it sees
pictures anywhere (Hugging Face, google/gemma-4-12B-it, discussion 45: one reporter, with controls; not measured here).
So a clip goes to the model as sound only where its last token stands before position 450:

    system and template  15 tokens, clip of 10 s 250 tokens   ends at 265    heard directly
    clip of 20 s         500 tokens                           ends at 515    written down
    after ten turns      begins at 2,000                      ends past it   written down

What is written down is transcribed in a context of its own, that holds Google's prompt for it and the clip. There too
the end of a clip of 30 s (750 tokens) lies past the limit, but nothing else pushes it further.
"""

from __future__ import annotations

from collections.abc import Sequence

from gemma_mlx.gemma import Gemma
from gemma_mlx.tasks.conversation import Conversation
from gemma_mlx.tasks.transcription import transcribe
from gemma_mlx.tasks.turn import Attached, Turn

LAST_HEARD_TOKENS = 450
"""A sound that ends before this position is taken to be heard."""


def heard_until(conversation: Conversation, attached: Sequence[Attached], text: str = "") -> int:
    """The position behind the last soft token of the last sound, were a message of all this sent now: by building
    the prompt."""
    messages = [*conversation.messages, Turn(text, attached).message]
    prompt = conversation.gemma.prompts.build(messages, thinking=bool(conversation.thinking))
    return max(span.start + span.length for span in prompt.spans if span.kind == "audio")


def dictate(gemma: Gemma, clip: Attached) -> str:
    """What is said in a clip that is prepared, transcribed in a session of its own.

    Beside the chat's session that takes one window of the sliding layers more (0.34 GB of the 12B), out of the plan's
    reserve of 5 %. InputError for a clip of more than 30 s.
    """
    assert clip.media is not None
    return transcribe(gemma, clip.media).text.strip()
