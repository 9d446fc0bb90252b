"""A short clip of speech -> what is said in it, with the prompt, order and decoding of Google's model card."""

from __future__ import annotations

from typing import Any, cast

from gemma_mlx.answer import Reply
from gemma_mlx.errors import InputError
from gemma_mlx.gemma import Gemma
from gemma_mlx.inputs.media import Media
from gemma_mlx.inputs.waveform import SAMPLE_RATE_HZ, SAMPLES_PER_FRAME
from gemma_mlx.tasks.message import Source, user_message

MAX_CLIP_S = 30
"""The model was trained on clips up to this length (model card)."""

_IN_ITS_LANGUAGE = "Transcribe the following speech segment in its original language."
_IN_LANGUAGE = "Transcribe the following speech segment in {language} into {language} text."
_FORMAT = """

Follow these specific instructions for formatting the answer:
* Only output the transcription, with no newlines.
* When transcribing numbers, write the digits, i.e. write 1.7 and not one point seven, and write 3 instead of three."""


def transcription_prompt(language: str | None = None) -> str:
    """Google's prompt, word for word, for speech in `language` ("German") or in one that is not known."""
    first = _IN_LANGUAGE.format(language=language) if language else _IN_ITS_LANGUAGE
    return first + _FORMAT


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
            f"{media.label}: {length_s:.2f} s is more than the {MAX_CLIP_S} s that the model hears at once; cut it "
            f"into clips: ffmpeg -i IN -f segment -segment_time {MAX_CLIP_S - 1} OUT%03d.wav"
        )
