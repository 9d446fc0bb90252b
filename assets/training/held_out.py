"""The cases that the miniature is judged by: drawn like its training data, from seeds that no training uses."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from assets.training.batches import LAST_LEVELS
from assets.training.dialogue import dialogue_sample
from assets.training.reading import FREEDOM, random_text, text_picture
from assets.training.sample import CAPTION_PROMPT, READ_PROMPT, TRANSCRIBE_PROMPT, Sample, image_turn, sound_turn
from assets.training.scenes import random_scene
from assets.training.speech import random_utterance, recorded

HELD_OUT_SEED = 9_000_000
Case = Callable[[np.random.Generator], Sample]


def held_out_case(salt: int, case: Case, number: int) -> Sample:
    """The case `number` of its kind: the same wherever it is drawn. `salt` tells the kinds apart."""
    return case(np.random.default_rng((HELD_OUT_SEED, salt, number)))


def scene_case(rng: np.random.Generator) -> Sample:
    """A caption of two shapes, asked as the caption command asks."""
    scene = random_scene(rng, 2)
    return Sample([image_turn(CAPTION_PROMPT)], scene.caption, images=[scene.image])


def text_case(rng: np.random.Generator) -> Sample:
    """One to eight characters anywhere in a picture."""
    text = random_text(rng, 1, 8)
    return Sample([image_turn(READ_PROMPT)], text, images=[text_picture(rng, text, FREEDOM)])


def speech_case(rng: np.random.Generator, voices: tuple[str, ...], longest: int = 6) -> Sample:
    """One to six digits, noise and gain varied, spoken for this case alone."""
    digits, sound, _voice = random_utterance(rng, int(rng.integers(1, longest + 1)), voices)
    return Sample([sound_turn(TRANSCRIBE_PROMPT)], " ".join(digits), sounds=[recorded(rng, sound, 0.1)])


def dialogue_case(rng: np.random.Generator, thinking: bool) -> Sample:
    """A conversation as in training, with or without thoughts."""
    while True:
        sample = dialogue_sample(rng, LAST_LEVELS["dialogue"], pictures=rng.random() < 0.6)
        if (sample.thought is not None) == thinking:
            return sample
