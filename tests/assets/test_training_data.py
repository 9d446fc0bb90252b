"""Training data: a function of the seed, rendered as the chat template renders it, prepared as the processor does."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from jinja2.sandbox import ImmutableSandboxedEnvironment

from assets.training.batches import expand, prepare_image, prepare_sound, render, resized_px
from assets.training.dialogue import dialogue_sample
from assets.training.reading import reading_sample, text_picture
from assets.training.sample import Sample, sound_turn
from assets.training.scenes import caption_sample, random_scene
from assets.training.tokenizer import SPECIAL_IDS

TEMPLATE = Path(__file__).parents[2] / "assets/miniature/chat_template.jinja"


def samples() -> list[Sample]:
    """Some of each kind, and one with a sound."""
    rng = np.random.default_rng(3)
    made = [dialogue_sample(rng, 1, pictures=i % 2 == 0) for i in range(60)]
    made += [caption_sample(rng, 1), reading_sample(rng, 6)]
    return [*made, Sample([sound_turn("Transcribe this.")], "1 2", sounds=[np.zeros(1000, np.float32)])]


def test_prompts_are_those_of_the_chat_template() -> None:
    environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)
    template = environment.from_string(TEMPLATE.read_text(encoding="utf-8"))
    for sample in samples():
        expected = template.render(
            messages=sample.messages,
            bos_token="<bos>",
            add_generation_prompt=True,
            enable_thinking=sample.thought is not None,
        )
        assert render(sample)[0] == expected


def test_same_seed_gives_the_same_picture_and_caption() -> None:
    first, second, other = (random_scene(np.random.default_rng(seed), 2) for seed in (5, 5, 6))
    assert first.caption == second.caption
    assert first.image.tobytes() == second.image.tobytes()
    assert first.image.size != other.image.size


def test_first_named_shape_lies_left_or_above() -> None:
    rng = np.random.default_rng(0)
    for _ in range(50):
        scene = random_scene(rng, 2)
        first, second = scene.shapes
        across, down = second.x_px - first.x_px, second.y_px - first.y_px
        wanted = (across, down) if scene.relation == "left of" else (down, across)
        assert wanted[0] > abs(wanted[1])


@pytest.mark.parametrize("text", ["A", "ABC123", "12345678"])
def test_text_on_the_grid_passes_the_processor_unchanged(text: str) -> None:
    for seed in range(10):
        image = text_picture(np.random.default_rng(seed), text, 0.0)
        assert resized_px(*image.size, 70) == image.size


@pytest.mark.parametrize(("size", "tokens"), [((224, 224), 256), ((1024, 256), 264), ((3, 900), 280)])
def test_soft_tokens_of_known_sizes_at_280(size: tuple[int, int], tokens: int) -> None:
    width, height = resized_px(*size, 280)
    assert width * height == tokens * 48 * 48


def test_patches_are_in_raster_order_with_x_before_y() -> None:
    image = text_picture(np.random.default_rng(1), "AB", 1.0).resize((480, 336))
    patches, positions = prepare_image(image, 70)
    assert patches.shape == (70, 6912)
    assert positions[:11].tolist() == [[x, 0] for x in range(10)] + [[0, 1]]
    assert np.array_equal(patches[11], np.asarray(image)[48:96, 48:96].reshape(-1))


def test_last_frame_is_padded_with_zeros() -> None:
    frames = prepare_sound(np.ones(641, np.float32))
    assert frames.shape == (2, 640)
    assert frames[1].sum() == 1


def test_placeholders_become_start_soft_tokens_end() -> None:
    image, sound = SPECIAL_IDS["<|image|>"], SPECIAL_IDS["<|audio|>"]
    ids, blocks = expand((7, image, image, sound, 8), [2, 1], [3])
    start, end = SPECIAL_IDS["<|image>"], SPECIAL_IDS["<image|>"]
    heard = [SPECIAL_IDS["<|audio>"], sound, sound, sound, SPECIAL_IDS["<audio|>"]]
    assert ids == [7, start, image, image, end, start, image, end, *heard, 8]
    assert blocks == [-1, -1, 0, 0, -1, -1, 1, -1, *[-1] * 5, -1]
