"""Which way speech goes, and what is written down of it."""

from __future__ import annotations

import json

import numpy as np
import pytest
from numpy.typing import NDArray

from gemma_mlx.gemma import Gemma
from gemma_mlx.home import samples_folder
from gemma_mlx.inputs.waveform import SAMPLE_RATE_HZ, SAMPLES_PER_FRAME, read_waveform
from gemma_mlx.tasks.conversation import Conversation
from gemma_mlx.tasks.dictation import LAST_HEARD_TOKENS, dictate, heard_until
from gemma_mlx.tasks.turn import Attached
from gemma_mlx.tasks.windows import MARGIN_S, best_aim, from_first_to_last_word


def silence(seconds: float) -> NDArray[np.float32]:
    return np.zeros(round(seconds * SAMPLE_RATE_HZ), np.float32)


def clip(conversation: Conversation, seconds: float) -> Attached:
    return conversation.prepared("audio", (silence(seconds), SAMPLE_RATE_HZ), "speech")


def test_the_end_of_a_clip_is_counted_in_the_prompt_itself(miniature: Gemma) -> None:
    conversation = Conversation(miniature)
    bare = heard_until(conversation, [clip(conversation, 0.04)]) - 1
    assert 0 < bare < 20
    assert heard_until(conversation, [clip(conversation, 12)]) == bare + 300
    assert heard_until(conversation, [clip(conversation, 0.04), clip(conversation, 12)]) > bare + 301
    told = Conversation(miniature, system="Answer in one word, and do not say more than that.")
    assert heard_until(told, [clip(told, 12)]) > bare + 300
    prompt = miniature.prompts.build(
        [*told.messages, {"role": "user", "content": [{"type": "audio", "audio": (silence(12), SAMPLE_RATE_HZ)}]}]
    )
    sound = prompt.ids.index(miniature.prompts.tokenizer.special.audio)
    assert heard_until(told, [clip(told, 12)]) == sound + 300


def test_the_longest_clip_that_is_heard_directly_ends_before_the_limit(miniature: Gemma) -> None:
    conversation = Conversation(miniature)
    room = LAST_HEARD_TOKENS - (heard_until(conversation, [clip(conversation, 0.04)]) - 1)
    frame_s = SAMPLES_PER_FRAME / SAMPLE_RATE_HZ
    assert heard_until(conversation, [clip(conversation, room * frame_s)]) == LAST_HEARD_TOKENS
    assert heard_until(conversation, [clip(conversation, (room + 1) * frame_s)]) == LAST_HEARD_TOKENS + 1
    assert 12 < room * frame_s < LAST_HEARD_TOKENS * frame_s


def test_no_window_of_dictation_ends_past_the_limit() -> None:
    for prompt_tokens in (58, 120):
        aim = best_aim(miniature=False, prompt_tokens=prompt_tokens, subtitles=False)
        longest_tokens = aim.longest_s * SAMPLE_RATE_HZ / SAMPLES_PER_FRAME
        assert prompt_tokens + longest_tokens < LAST_HEARD_TOKENS


@pytest.mark.parametrize(("before_s", "after_s"), [(0.0, 0.0), (1.0, 1.8), (5.0, 0.3)])
def test_digits_are_written_down_whatever_silence_is_around_them(
    miniature: Gemma, before_s: float, after_s: float
) -> None:
    rows = json.loads((samples_folder() / "samples.json").read_text(encoding="utf-8"))["samples"]
    for file in ("speech.wav", "speech-01.flac"):
        [expected] = [row["expected"] for row in rows if row["file"] == file]
        spoken = np.concatenate([silence(before_s), read_waveform(samples_folder() / file), silence(after_s)])
        assert dictate(miniature, spoken) == expected


def test_speech_of_several_windows_is_one_text(miniature: Gemma) -> None:
    digits = read_waveform(samples_folder() / "speech.wav")
    assert dictate(miniature, np.concatenate([digits, silence(1.5), digits])) == "4 7 1 4 7 1"


def test_it_stops_between_two_tokens(miniature: Gemma) -> None:
    asked: list[bool] = []

    def stopped(after: int) -> bool:
        asked.append(len(asked) == after)
        return asked[-1]

    digits = read_waveform(samples_folder() / "speech.wav")
    assert dictate(miniature, digits, lambda: stopped(-1)) == "4 7 1"
    tokens = len(asked) - 1
    assert tokens > 3
    for after in (0, 2):
        asked.clear()
        assert dictate(miniature, digits, lambda after=after: stopped(after)) is None  # type: ignore[misc]
        assert len(asked) == after + 1


def test_silence_has_no_words(miniature: Gemma) -> None:
    assert dictate(miniature, silence(3)) == ""


def test_silence_around_words_is_not_sent() -> None:
    digits = read_waveform(samples_folder() / "speech.wav")
    cut = from_first_to_last_word(np.concatenate([silence(2), digits, silence(1.6)]))
    assert len(cut) <= len(digits) + 2 * MARGIN_S * SAMPLE_RATE_HZ + 320
    loudest = int(np.argmax(np.abs(digits)))
    assert digits[loudest] in cut
    assert len(from_first_to_last_word(silence(2))) == 2 * SAMPLE_RATE_HZ
