"""Writes held-out cases of the miniature for `gemma-mlx bench quality`: `python -m assets.training.eval_set OUT`.

OUT/sets gets the folders captions, readings, speech and speech-unseen (voices that were not trained on), each of media
with NAME.txt beside, for --set. OUT/prompts.jsonl, for --prompts, asks for the same and for the last answers of
dialogues, with what is right. They are the first cases that `assets.training.evaluate` scores, so that the two can be
compared. Speech needs espeak-ng.
"""

from __future__ import annotations

import argparse
import json
import shutil
from pathlib import Path
from typing import Any

import soundfile
from PIL import Image

from assets.training.held_out import Case, dialogue_case, held_out_case, scene_case, speech_case, text_case
from assets.training.sample import READ_PROMPT, SAMPLE_RATE_HZ, Sample
from assets.training.speech import UNSEEN_VOICES, VOICES

SETS: dict[str, tuple[int, Case]] = {
    "captions": (1, scene_case),
    "readings": (2, text_case),
    "speech": (3, lambda rng: speech_case(rng, VOICES)),
    "speech-unseen": (4, lambda rng: speech_case(rng, UNSEEN_VOICES)),
}
"""The salt of each kind in `assets.training.evaluate`, and how a case is drawn."""
DIALOGUE_SALT = 5
Prompt = dict[str, Any]
"""A line of the prompts' file."""


def write_set(out: Path, name: str, cases: int) -> list[Prompt]:
    """`out`/sets/`name` holds `cases` media afterwards, each with what is in it beside; returns them as prompts."""
    salt, case = SETS[name]
    folder = out / "sets" / name
    folder.mkdir(parents=True, exist_ok=True)
    prompts = []
    for number in range(cases):
        sample = held_out_case(salt, case, number)
        [asked] = [part["text"] for part in sample.messages[0]["content"] if part["type"] == "text"]
        stem = f"{name}-{number:03}"
        if sample.images:
            kind, file = "image", folder / f"{stem}.png"
            _save(sample.images[0], file)
        else:
            kind, file = "audio", folder / f"{stem}.flac"
            soundfile.write(file, sample.sounds[0], SAMPLE_RATE_HZ, subtype="PCM_16")
        (folder / f"{stem}.txt").write_text(sample.answer + "\n", encoding="utf-8")
        prompts.append({"kind": name, "text": asked, kind: str(file.relative_to(out)), "answer": sample.answer})
    if name == "readings":
        (folder / "prompt.txt").write_text(READ_PROMPT + "\n", encoding="utf-8")
    return prompts


def write_dialogues(out: Path, cases: int) -> list[Prompt]:
    """`cases` conversations, whose pictures `out`/dialogues holds afterwards, with their last answers."""
    prompts = []
    folder = out / "dialogues"
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(cases):
        sample = held_out_case(DIALOGUE_SALT, lambda rng: dialogue_case(rng, thinking=False), number)
        files = [folder / f"{number:03}-{index}.png" for index in range(len(sample.images))]
        for picture, file in zip(sample.images, files, strict=True):
            _save(picture, file)
        prompts.append(
            {
                "kind": "dialogues",
                "messages": _naming(sample, [str(file.relative_to(out)) for file in files]),
                "answer": sample.answer,
            }
        )
    return prompts


def _naming(sample: Sample, files: list[str]) -> list[dict[str, Any]]:
    """The messages of `sample`, in which each picture's part names its file."""
    waiting = iter(files)

    def named(part: dict[str, Any]) -> dict[str, Any]:
        return {**part, "image": next(waiting)} if part["type"] == "image" else part

    return [
        {**message, "content": [named(part) for part in message["content"]]}
        if isinstance(message["content"], list)
        else message
        for message in sample.messages
    ]


def _save(image: Image.Image, file: Path) -> None:
    image.convert("RGB").save(file, optimize=True)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("--cases", type=int, default=64, help="how many of each kind")
    arguments = parser.parse_args()
    if shutil.which("espeak-ng") is None:
        parser.error("speech needs espeak-ng; install it first")
    out = arguments.out
    prompts = [prompt for name in SETS for prompt in write_set(out, name, arguments.cases)]
    prompts += write_dialogues(out, arguments.cases)
    lines = "".join(json.dumps(prompt) + "\n" for prompt in prompts)
    (out / "prompts.jsonl").write_text(lines, encoding="utf-8")


if __name__ == "__main__":
    main()
