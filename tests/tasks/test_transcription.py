from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from gemma_mlx.errors import InputError
from gemma_mlx.gemma import Gemma
from gemma_mlx.tasks.captioning import PROMPT, caption
from gemma_mlx.tasks.transcription import transcribe, transcription_prompt

FORMAT = (
    "Follow these specific instructions for formatting the answer:\n"
    "* Only output the transcription, with no newlines.\n"
    "* When transcribing numbers, write the digits, i.e. write 1.7 and not one point seven, and write 3 instead of "
    "three."
)


def test_the_prompt_is_googles_word_for_word() -> None:
    unknown = "Transcribe the following speech segment in its original language.\n\n"
    german = "Transcribe the following speech segment in German into German text.\n\n"
    assert transcription_prompt() == unknown + FORMAT
    assert transcription_prompt("German") == german + FORMAT
    assert PROMPT == "Describe this image in one sentence."


def test_a_transcript_is_the_greedy_answer_to_text_before_sound(miniature: Gemma, tone: Path) -> None:
    message = {
        "role": "user",
        "content": [{"type": "text", "text": transcription_prompt()}, {"type": "audio", "audio": tone}],
    }
    expected = miniature.reply([message], sampling=miniature.sampling(temperature=0.0), max_tokens=8)
    assert transcribe(miniature, tone, max_tokens=8).tokens == expected.tokens


def test_a_clip_is_never_cut(miniature: Gemma, tmp_path: Path) -> None:
    import soundfile

    rate_hz = 16_000
    for samples, fits in ((30 * rate_hz, True), (30 * rate_hz + 1, False)):
        path = tmp_path / "clip.wav"
        soundfile.write(path, np.zeros(samples, dtype=np.float32), rate_hz)
        if fits:
            assert transcribe(miniature, path, max_tokens=1).audio_tokens == 750
        else:
            with pytest.raises(InputError, match=r"clip.wav .*30\.04 s"):
                transcribe(miniature, path)


def test_a_caption_is_the_answer_to_a_picture_before_the_prompt(miniature: Gemma, picture: Path) -> None:
    message = {"role": "user", "content": [{"type": "image", "image": picture}, {"type": "text", "text": PROMPT}]}
    expected = miniature.reply([message], max_tokens=12)
    assert caption(miniature, picture, max_tokens=12).tokens == expected.tokens
