"""Speech -> what is said in it, with the prompts, order and decoding of Google's model card: what to ask, and one clip.

Recordings of any length are `gemma_mlx.tasks.transcript`'s.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, cast

from gemma_mlx.answer import Reply
from gemma_mlx.errors import InputError, UsageError
from gemma_mlx.gemma import Gemma
from gemma_mlx.inputs.media import Media
from gemma_mlx.inputs.waveform import SAMPLE_RATE_HZ, SAMPLES_PER_FRAME
from gemma_mlx.tasks.message import Source, user_message

MAX_CLIP_S = 30
"""The model was trained on clips up to this length (model card)."""

_UNKNOWN_LANGUAGE = "its original language"
_IN_ITS_LANGUAGE = f"Transcribe the following speech segment in {_UNKNOWN_LANGUAGE}."
_IN_LANGUAGE = "Transcribe the following speech segment in {language} into {language} text."
_FORMAT = """

Follow these specific instructions for formatting the answer:
* Only output the transcription, with no newlines.
* When transcribing numbers, write the digits, i.e. write 1.7 and not one point seven, and write 3 instead of three."""
_VOCABULARY = "\n* These names and words may occur, spelled so: {vocabulary}"
_TRANSLATED = (
    "Transcribe the following speech segment in {language}, then translate it into {target}.\n"
    "When formatting the answer, first output the transcription in {language}, then one newline, then output the "
    "string '{target}: ', then the translation in {target}."
)
_TRANSLATED_VOCABULARY = "\nThese names and words may occur in the speech, spelled so: {vocabulary}"


def transcription_prompt(language: str | None = None, vocabulary: str | None = None) -> str:
    """Google's prompt, word for word, for speech in `language` ("German") or in one that is not known.

    A `vocabulary` of names and words is one more of its instructions, and the only words that are not Google's.
    """
    first = _IN_LANGUAGE.format(language=language) if language else _IN_ITS_LANGUAGE
    return first + _FORMAT + (_VOCABULARY.format(vocabulary=vocabulary) if vocabulary else "")


def translation_prompt(target: str, language: str | None = None, vocabulary: str | None = None) -> str:
    """Google's prompt for speech in `language` to be written down and then translated into `target`."""
    asked = _TRANSLATED.format(language=language or _UNKNOWN_LANGUAGE, target=target)
    return asked + (_TRANSLATED_VOCABULARY.format(vocabulary=vocabulary) if vocabulary else "")


@dataclass(frozen=True)
class Wanted:
    """What to write down of speech: what is said or, with `target`, that and its translation."""

    language: str | None = None
    target: str | None = None
    vocabulary: str | None = None

    def __post_init__(self) -> None:
        for option, value in (("--language", self.language), ("--translate-to", self.target),
                              ("--prompt", self.vocabulary)):  # fmt: skip
            if value is not None and (not value.strip() or "\n" in value):
                raise UsageError(f"{option} is {value!r}; write it on one line, or leave it out")

    @property
    def prompt(self) -> str:
        if self.target is None:
            return transcription_prompt(self.language, self.vocabulary)
        return translation_prompt(self.target, self.language, self.vocabulary)

    def read(self, answer: str) -> tuple[str, str | None]:
        """(the text wanted, what was said) of an answer; the second is None where that is the first, or is missing."""
        answer = answer.strip()
        if self.target is None:
            return answer, None
        said, mark, translated = answer.partition(f"{self.target}:")
        return (translated.strip(), said.strip()) if mark else (answer, None)


def transcribe(gemma: Gemma, sound: Source, language: str | None = None, **options: Any) -> Reply:
    """What is said in `sound`, decoded greedily and without thinking; `options` are those of `Gemma.stream`.

    InputError for what is no sound, and for one longer than `MAX_CLIP_S`: nothing is ever cut off.
    """
    [message] = gemma.prepare([user_message(transcription_prompt(language), sounds=[sound])])
    _check_length(cast("Media", message["content"][-1]["audio"]))
    return gemma.reply([message], sampling=gemma.sampling(temperature=0.0), **options)


def _check_length(media: Media) -> None:
    length_s = media.soft_tokens * SAMPLES_PER_FRAME / SAMPLE_RATE_HZ  # rounded up to a frame of 40 ms
    if length_s > MAX_CLIP_S:
        raise InputError(
            f"{media.label}: {length_s:.2f} s is more than the {MAX_CLIP_S} s that the model hears at once; "
            "gemma-mlx transcribe takes any length"
        )
