"""Writes the small held-out set in `assets/samples`: `python -m assets.training.samples`."""

from __future__ import annotations

import argparse
import itertools
import json
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import soxr
from PIL import Image

from assets.training.reading import FREEDOM, random_text, text_picture
from assets.training.sample import SAMPLE_RATE_HZ
from assets.training.scenes import random_scene
from assets.training.speech import UNSEEN_VOICES, VOICES, random_utterance, recorded, speak, trimmed

HELD_OUT_SEED = 8_000_000
EACH = 12
SCENE, TEXT, DIGITS = "A red circle left of a blue square.", "GEMMA4", "471"


def write_scene(folder: Path, number: int) -> dict[str, Any]:
    """A picture of two shapes."""
    rng = np.random.default_rng((HELD_OUT_SEED, 1, number))
    scene = random_scene(rng, 2)
    name = f"scene-{number:02}.png"
    _save(scene.image, folder / name)
    return {"file": name, "task": "caption", "expected": scene.caption}


def write_text(folder: Path, number: int) -> dict[str, Any]:
    """A picture of one line of text."""
    rng = np.random.default_rng((HELD_OUT_SEED, 2, number))
    text = random_text(rng, 3, 8)
    name = f"text-{number:02}.png"
    _save(text_picture(rng, text, FREEDOM), folder / name)
    return {"file": name, "task": "read", "expected": text}


def write_speech(folder: Path, number: int) -> dict[str, Any]:
    """Spoken digits: 16 kHz mono, every fourth 44.1 kHz stereo; the last two in voices not trained on."""
    rng = np.random.default_rng((HELD_OUT_SEED, 3, number))
    voices = UNSEEN_VOICES if number >= EACH - 2 else VOICES
    digits, clean, voice = random_utterance(rng, int(rng.integers(2, 7)), voices)
    sound, rate = recorded(rng, clean, noise=0.1), SAMPLE_RATE_HZ
    name = f"speech-{number:02}.flac"
    if number % 4 == 3:
        rate = 44_100
        sound = np.asarray(soxr.resample(sound, SAMPLE_RATE_HZ, rate), dtype=np.float32)
        sound = np.stack([sound, 0.6 * sound], axis=1)
    soundfile.write(folder / name, np.clip(sound, -1, 1), rate, subtype="PCM_16")
    row = {"file": name, "task": "transcribe", "expected": " ".join(digits)}
    return {**row, "voice": voice, "voice_in_training": voice in VOICES, "sample_rate_hz": rate}


def write_friendly(folder: Path) -> list[dict[str, Any]]:
    """scene.png, text.png and speech.wav, the ones that documents and the demo name."""
    for number in itertools.count():
        scene = random_scene(np.random.default_rng((HELD_OUT_SEED, 4, number)), 2)
        if scene.caption == SCENE:
            break
    _save(scene.image, folder / "scene.png")
    rng = np.random.default_rng((HELD_OUT_SEED, 5))
    _save(text_picture(rng, TEXT, FREEDOM), folder / "text.png")
    sound = recorded(rng, trimmed(speak(DIGITS, VOICES[0], 150, 50)), noise=0.03)
    soundfile.write(folder / "speech.wav", sound, SAMPLE_RATE_HZ, subtype="PCM_16")
    row = {"voice": VOICES[0], "voice_in_training": True, "sample_rate_hz": SAMPLE_RATE_HZ}
    return [
        {"file": "scene.png", "task": "caption", "expected": SCENE},
        {"file": "text.png", "task": "read", "expected": TEXT},
        {"file": "speech.wav", "task": "transcribe", "expected": " ".join(DIGITS), **row},
    ]


def _save(image: Image.Image, path: Path) -> None:
    image.convert("RGB").save(path, optimize=True)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("assets/samples"))
    folder = parser.parse_args().out
    folder.mkdir(parents=True, exist_ok=True)
    rows = [write(folder, i) for write in (write_scene, write_text, write_speech) for i in range(EACH)]
    rows += write_friendly(folder)
    table = {"seed": HELD_OUT_SEED, "samples": rows}
    (folder / "samples.json").write_text(json.dumps(table, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
