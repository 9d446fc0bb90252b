"""The folder answers through transformers alone: its loader, its masks, its generate()."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from PIL import Image

from assets.training.sample import CAPTION_PROMPT, READ_PROMPT, TRANSCRIBE_PROMPT, Sample, image_turn, sound_turn

pytestmark = pytest.mark.reference
ASSETS = Path(__file__).parents[2] / "assets"


@pytest.fixture(scope="module")
def loaded() -> Any:
    """The model as transformers loads it, in float32, and its tokenizer."""
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    folder = ASSETS / "miniature"
    model = transformers.Gemma4UnifiedForConditionalGeneration.from_pretrained(folder, dtype=torch.float32)
    return model, transformers.AutoTokenizer.from_pretrained(folder)


def answer(loaded: Any, sample: Sample) -> str:
    """What generate() writes after the prompt of `sample`; a token that ends the turn is left out."""
    import torch

    from assets.training.batches import expand, prepare_image, prepare_sound

    model, tokenizer = loaded
    text = tokenizer.apply_chat_template(sample.messages, add_generation_prompt=True, tokenize=False)
    images = [prepare_image(image, 70) for image in sample.images]
    sounds = [prepare_sound(sound) for sound in sample.sounds]
    prompt = tuple(tokenizer(text, add_special_tokens=False)["input_ids"])
    ids, blocks = expand(prompt, [len(p) for p, _ in images], [len(s) for s in sounds])
    media: dict[str, Any] = {}
    if images:
        media["pixel_values"] = torch.tensor(np.stack([p for p, _ in images])).float() / 255
        media["image_position_ids"] = torch.tensor(np.stack([xy for _, xy in images]))
    if sounds:
        media["input_features"] = torch.tensor(np.stack(sounds))
        media["input_features_mask"] = torch.ones(1, len(sounds[0]), dtype=torch.bool)
    out = model.generate(
        input_ids=torch.tensor([ids]),
        attention_mask=torch.ones(1, len(ids), dtype=torch.long),
        mm_token_type_ids=(torch.tensor([blocks]) >= 0).long(),
        max_new_tokens=40,
        **media,
    )
    written = out[0, len(ids) :].tolist()
    return str(tokenizer.decode(written, skip_special_tokens=True))


def expected(name: str) -> str:
    """The answer that samples.json gives for a file."""
    rows = json.loads((ASSETS / "samples/samples.json").read_text(encoding="utf-8"))["samples"]
    return next(str(row["expected"]) for row in rows if row["file"] == name)


@pytest.mark.parametrize(("name", "prompt"), [("scene.png", CAPTION_PROMPT), ("text.png", READ_PROMPT)])
def test_picture_is_answered(loaded: Any, name: str, prompt: str) -> None:
    with Image.open(ASSETS / "samples" / name) as image:
        sample = Sample([image_turn(prompt)], "", images=[image.convert("RGB")])
    assert answer(loaded, sample) == expected(name)


def test_speech_is_transcribed(loaded: Any) -> None:
    sound, rate = soundfile.read(ASSETS / "samples/speech.wav", dtype="float32")
    assert rate == 16_000
    assert answer(loaded, Sample([sound_turn(TRANSCRIBE_PROMPT)], "", sounds=[sound])) == expected("speech.wav")


def test_name_is_remembered_over_two_turns(loaded: Any) -> None:
    turns = [
        {"role": "user", "content": "My name is Anna."},
        {"role": "assistant", "content": "Nice to meet you, Anna."},
        {"role": "user", "content": "What is my name?"},
    ]
    assert answer(loaded, Sample(turns, "")) == "Your name is Anna."
