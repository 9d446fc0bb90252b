"""Speech in a chat: heard by the model where it stands or, too far into the context, written down first.

The 12B is reported to lose sound that stands past 450 to 500 tokens from the beginning of the context, while it sees
pictures anywhere (Hugging Face, google/gemma-4-12B-it, discussion 45: one reporter, with controls; not measured here).
So a clip goes to the model as sound only where its last token stands before position 450, of whatever size the model:

    system and template  20 tokens, clip of 12 s 300 tokens   ends at 320    heard directly
    clip of 20 s         500 tokens                           ends at 520    written down
    after ten turns      begins at 2,000                      ends past it   written down

What is written down is transcribed in a context of its own, as `gemma-mlx transcribe` does it: with Google's prompt,
and a clip that is longer than what ends before that position there (about 14 s) in more than one window.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from gemma_mlx.gemma import MAX_TOKENS, Gemma
from gemma_mlx.tasks.conversation import Conversation
from gemma_mlx.tasks.listening import Listener, StoppedError
from gemma_mlx.tasks.transcript import segments
from gemma_mlx.tasks.transcription import Wanted
from gemma_mlx.tasks.turn import Attached, Turn
from gemma_mlx.tasks.windows import HEARD_POSITIONS, Samples, best_aim, speech_windows

LAST_HEARD_TOKENS = HEARD_POSITIONS
"""A sound that ends before this position is taken to be heard."""


def heard_until(conversation: Conversation, attached: Sequence[Attached], text: str = "") -> int:
    """The position behind the last soft token of the last sound, were a message of all this sent now: by building
    the prompt."""
    messages = [*conversation.messages, Turn(text, attached).message]
    prompt = conversation.gemma.prompts.build(messages, thinking=bool(conversation.thinking))
    return max(span.start + span.length for span in prompt.spans if span.kind == "audio")


def dictate(gemma: Gemma, samples: Samples, stopped: Callable[[], bool] = lambda: False) -> str | None:
    """What is said in [n] samples at 16 kHz, transcribed greedily in a session of its own; "" where nobody speaks.

    None where `stopped`, which is asked at each token, says so.

    Beside the chat's session that takes one window of the sliding layers more (0.34 GB of the 12B), out of the plan's
    reserve of 5 %.
    """
    listener = Listener(gemma, Wanted(), max_tokens=MAX_TOKENS, stopped=stopped)
    aim = best_aim(miniature=gemma.miniature, prompt_tokens=listener.prompt_tokens, subtitles=False)
    windows = speech_windows([samples], aim)
    heard = segments(windows, lambda window: listener.hear(window.samples, window.spoken_s))
    try:
        return " ".join(segment.text for segment in heard if segment.text)
    except StoppedError:
        return None
