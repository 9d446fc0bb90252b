from __future__ import annotations

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFont

from gemma_mlx.inputs.detail import auto_budget
from gemma_mlx.inputs.image import BUDGETS, fitted_size
from gemma_mlx.inputs.media import prepare_media


def page(width_px: int, height_px: int, letter_px: int) -> Image.Image:
    """A page full of lines, in letters of this height."""
    rng = np.random.default_rng(0)
    image = Image.new("RGB", (width_px, height_px), "white")
    draw, font = ImageDraw.Draw(image), ImageFont.load_default(letter_px)
    for top in range(letter_px, height_px - letter_px, int(letter_px * 1.4)):
        letters = rng.choice(list("abcdefghijklmnopqrstuvwxyz   "), size=width_px // letter_px * 2)
        draw.text((letter_px, top), "".join(letters), fill="black", font=font)
    return image


def landscape(width_px: int, height_px: int, steepness: float) -> Image.Image:
    """Noise whose amplitude falls with frequency as that of photos does."""
    spectrum = np.fft.fft2(np.random.default_rng(0).standard_normal((height_px, width_px)))
    frequency = np.hypot(np.fft.fftfreq(height_px)[:, None], np.fft.fftfreq(width_px)[None])
    frequency[0, 0] = 1
    values = np.fft.ifft2(spectrum / frequency**steepness).real
    levels = np.clip((values - values.mean()) / values.std() * 50 + 128, 0, 255)
    return Image.fromarray(levels.astype(np.uint8)).convert("RGB")


@pytest.mark.parametrize(
    ("width_px", "height_px", "letter_px"),
    [(1240, 1754, 20), (1240, 1754, 40), (1240, 1754, 90), (640, 480, 24), (1600, 900, 18), (300, 1200, 24)],
)
def test_letters_stay_large_enough_to_be_read(width_px: int, height_px: int, letter_px: int) -> None:
    budget = auto_budget(page(width_px, height_px, letter_px))
    x_height_px = letter_px / 2 * min(1, fitted_size(width_px, height_px, budget)[0] / width_px)
    assert x_height_px >= 7


def test_dense_pages_take_the_most_and_large_print_less() -> None:
    budgets = [auto_budget(page(1240, 1754, letter_px)) for letter_px in (20, 40, 100)]
    assert budgets[0] == 1120
    assert budgets == sorted(budgets, reverse=True)
    assert budgets[2] <= 140


@pytest.mark.parametrize("size_px", [(1280, 960), (1920, 1440)])
@pytest.mark.parametrize(("steepness", "most"), [(1.0, 280), (1.2, 70)])
def test_photos_take_no_more_for_more_pixels(size_px: tuple[int, int], steepness: float, most: int) -> None:
    assert auto_budget(landscape(*size_px, steepness)) <= most


def test_simple_pictures_take_the_least() -> None:
    shape = Image.new("RGB", (2000, 1500), "white")
    ImageDraw.Draw(shape).ellipse((200, 200, 1200, 1200), fill="red")
    assert auto_budget(shape) == BUDGETS[0]
    assert auto_budget(Image.new("RGB", (4000, 3000), "white")) == BUDGETS[0]
    assert auto_budget(Image.new("RGB", (1, 1))) == BUDGETS[0]
    assert auto_budget(Image.new("RGB", (4000, 3))) in BUDGETS


def test_auto_is_a_budget_of_a_picture() -> None:
    dense = page(1240, 1754, 20)
    automatic = prepare_media({"type": "image", "image": dense}, "auto")
    assert automatic.digest == prepare_media({"type": "image", "image": dense}, 1120).digest
