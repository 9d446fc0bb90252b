"""The stored cases of the reference, as our model takes them. `make_golden.py` made them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import mlx.core as mx
import numpy as np

from gemma_mlx.model.gemma4 import Gemma4

HERE = Path(__file__).parent
TINY = HERE / "tiny"
AUDIO_TOKEN = 121
PREFILL_CASES = (
    "text",
    "image",
    "image_wider_than_window",
    "audio",
    "image_and_audio",
    "several_images",
    "video",
)
GREEDY_CASES = ("greedy_text", "greedy_image")


@dataclass(frozen=True)
class Case:
    """One prompt and what the reference made of it."""

    ids: list[int]
    media: list[tuple[int, int, int]]
    """(placeholder, first index, soft tokens) of each picture or sound, in order."""
    arrays: dict[str, mx.array]

    @property
    def images(self) -> list[tuple[int, int]]:
        """(start, stop) of each image or frame of a video."""
        return [(start, start + count) for token, start, count in self.media if token != AUDIO_TOKEN]

    def soft_tokens(self, model: Gemma4) -> list[tuple[int, mx.array]]:
        """What `model` makes of each picture and sound, and where it goes."""
        found = []
        for index, (token, start, _) in enumerate(self.media):
            if token == AUDIO_TOKEN:
                rows = model.embed_sound(self.arrays[f"frames_{index}"])
            else:
                patches = self.arrays[f"patches_{index}"].astype(mx.float32) / 255
                rows = model.embed_image(patches, self.arrays[f"positions_{index}"])
            found.append((start, rows))
        return found

    def embeddings(self, model: Gemma4) -> mx.array:
        """The prompt as `model` embeds it, [1, L, D]."""
        return model.embed(self.ids, self.soft_tokens(model))


def load_cases() -> dict[str, Case]:
    """Every stored case by name."""
    by_case: dict[str, dict[str, mx.array]] = {}
    stored = mx.load(str(HERE / "cases.safetensors"))
    assert isinstance(stored, dict)
    for path, array in stored.items():
        case, name = path.split("/")
        by_case.setdefault(case, {})[name] = array
    return {
        name: Case(arrays["ids"].tolist(), [tuple(row) for row in np.array(arrays["media"]).tolist()], arrays)
        for name, arrays in by_case.items()
    }
