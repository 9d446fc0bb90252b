"""All texts of the training, for the vocabulary."""

from __future__ import annotations

from assets.training.dialogue import every_text
from assets.training.reading import READ_PROMPTS
from assets.training.sample import CAPTION_PROMPT, READ_PROMPT, TRANSCRIBE_PROMPT
from assets.training.scenes import CAPTION_PROMPTS
from assets.training.speech import TRANSCRIBE_PROMPTS

TEMPLATE_WORDS = "<|turn>system\n<|turn>user\n<|turn>model\n<|channel>thought\n declaration call response value"


def training_texts() -> list[str]:
    """Prompts, answers, thoughts, and the words that the chat template writes."""
    prompts = [CAPTION_PROMPT, READ_PROMPT, TRANSCRIBE_PROMPT, *CAPTION_PROMPTS, *READ_PROMPTS, *TRANSCRIBE_PROMPTS]
    return [*prompts, *every_text(), TEMPLATE_WORDS]
