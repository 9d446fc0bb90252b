"""Pictures of one line of monospaced text."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

import matplotlib
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from assets.training.sample import READ_PROMPT, Sample, image_turn

ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
READ_PROMPTS = (
    "Read the text.",
    "What does it say?",
    "What is written here?",
    "What text is in this image?",
    "Write down the text in this picture.",
)
# Longest text and freedom of placement at each level.
LEVELS = ((1, 0.0), (2, 0.0), (4, 0.0), (8, 0.0), (4, 0.2), (4, 0.4), (8, 0.6))
FREEDOM = LEVELS[-1][1]
# Columns and rows of 48 px that the processor neither scales nor crops at 70 soft tokens.
GRIDS = ((6, 11), (7, 9), (7, 10), (8, 8), (9, 7), (10, 7), (11, 6), (12, 5), (14, 5))
ADVANCE = 0.602  # of the size
FONTS = ("DejaVuSansMono.ttf", "DejaVuSansMono-Bold.ttf")


@lru_cache(maxsize=512)
def font(name: str, size_px: int) -> ImageFont.FreeTypeFont:
    """A monospaced face of matplotlib's package data."""
    return ImageFont.truetype(str(Path(matplotlib.get_data_path()) / "fonts" / "ttf" / name), size_px)


def random_text(rng: np.random.Generator, shortest: int, longest: int) -> str:
    """Letters and digits, every length equally often."""
    length = int(rng.integers(shortest, longest + 1))
    return "".join(ALPHABET[i] for i in rng.integers(0, len(ALPHABET), length))


def text_picture(rng: np.random.Generator, text: str, freedom: float) -> Image.Image:
    """A line of text.

    At freedom 0 each character stands in the middle of a 48 px cell of a grid that a budget of 70 soft tokens keeps
    as it is. Up to freedom 1 the picture's size and shape, the place of the line, its size, spacing and face vary
    more and more, down to the face's own spacing and up to any offset from the grid.
    """
    free = freedom if rng.random() < 0.5 else rng.uniform(0, freedom)
    columns, rows = GRIDS[int(rng.integers(0, len(GRIDS)))]
    while columns < len(text):
        columns, rows = GRIDS[int(rng.integers(0, len(GRIDS)))]
    width, height = (float(count * 48 + free * rng.uniform(-24, 24)) for count in (columns, rows))
    size = 56 * float(np.exp(free * rng.uniform(-0.12, 0.42)))
    pitch = ADVANCE * size * (48 / 56 / ADVANCE) ** (1 - free * rng.uniform(0, 1) ** 0.5)
    fit = min(1.0, 0.98 * width / (pitch * len(text)))
    size, pitch = size * fit, pitch * fit
    left, top = (
        float(48 * rng.integers(0, max(1, int((room + 1) // 48) + 1)) + free * rng.uniform(-24, 24))
        for room in (width - pitch * len(text), height - max(48.0, size))
    )
    left = float(np.clip(left, 0, max(0.0, width - pitch * len(text))))
    top = float(np.clip(top, 0, max(0.0, height - max(48.0, size))))
    zoom = float(np.exp(free * rng.uniform(-0.6, 0.4)))
    ink, paper = _colours(rng)
    image = Image.new("RGB", (round(width * zoom), round(height * zoom)), paper)
    draw = ImageDraw.Draw(image)
    face = font(FONTS[int(rng.random() < 0.3 * free)], max(10, round(size * zoom)))
    for i, character in enumerate(text):
        middle = (left + (i + 0.5) * pitch) * zoom, (top + max(48.0, size) / 2) * zoom
        draw.text(middle, character, font=face, fill=ink, anchor="mm")
    return image


def reading_sample(rng: np.random.Generator, level: int) -> Sample:
    """A text to read: on the grid and longer with each level, then freer in its placement."""
    if level > 0 and rng.random() < 0.2:
        level = int(rng.integers(0, level))
    longest, freedom = LEVELS[level]
    text = random_text(rng, 1 if rng.random() < 0.5 else (longest + 1) // 2, longest)
    prompt = READ_PROMPT if rng.random() < 0.7 else str(rng.choice(READ_PROMPTS))
    return Sample([image_turn(prompt)], text, images=[text_picture(rng, text, freedom)])


def _colours(rng: np.random.Generator) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Ink and paper: mostly dark on light, sometimes the other way round."""
    dark = tuple(int(v) for v in rng.integers(0, 90, 3))
    light = tuple(int(v) for v in rng.integers(215, 256, 3))
    if rng.random() < 0.4:
        dark, light = (0, 0, 0), (255, 255, 255)
    return (dark, light) if rng.random() < 0.8 else (light, dark)
