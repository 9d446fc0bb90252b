"""Pictures of coloured shapes, and what is true of them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw

from assets.training.sample import CAPTION_PROMPT, Sample, image_turn

COLOURS = {
    "red": (214, 40, 40),
    "green": (40, 150, 60),
    "blue": (40, 80, 210),
    "yellow": (240, 205, 40),
    "purple": (140, 60, 170),
    "orange": (240, 130, 30),
}
SHAPES = ("circle", "square", "triangle", "star")
CAPTION_PROMPTS = (
    "Describe this image.",
    "Describe the picture.",
    "What is in this image?",
    "What do you see?",
    "What is shown here?",
    "Caption this image.",
)


@dataclass(frozen=True)
class Shape:
    """A shape with its centre and radius in pixels of the picture."""

    colour: str
    kind: str
    x_px: float
    y_px: float
    radius_px: float

    @property
    def phrase(self) -> str:
        """The shape with its colour and article, "a red circle"."""
        article = "an" if self.colour[0] in "aeiou" else "a"
        return f"{article} {self.colour} {self.kind}"


@dataclass(frozen=True)
class Scene:
    """A picture and its shapes, the one the caption names first standing first."""

    image: Image.Image
    shapes: tuple[Shape, ...]
    relation: str | None

    @property
    def caption(self) -> str:
        """One sentence; two shapes are named left first or top first, whichever way they lie further apart."""
        if self.relation is None:
            return sentence(self.shapes[0].phrase)
        first, second = self.shapes
        return sentence(f"{first.phrase} {self.relation} {second.phrase}")


def sentence(text: str) -> str:
    """`text` with a capital and a full stop."""
    return text[0].upper() + text[1:] + "."


def random_scene(rng: np.random.Generator, shapes: int) -> Scene:
    """A scene of one or two shapes, the second differing from the first in colour or kind."""
    width, height = _canvas(rng)
    image, draw, scale = _open(rng, width, height)
    side = min(width, height)
    if shapes == 1:
        radius = rng.uniform(0.14, 0.33) * side
        x, y = (rng.uniform(radius, extent - radius) for extent in (width, height))
        placed: tuple[Shape, ...] = (_shape(rng, x, y, radius),)
        relation = None
    else:
        placed, relation = _pair(rng, width, height)
    for shape in placed:
        _draw(rng, draw, shape, scale)
    return Scene(_close(image, width, height), placed, relation)


def counted_scene(rng: np.random.Generator, shapes: int) -> Image.Image:
    """A picture of `shapes` shapes (1 to 4) that do not touch, in quarters of the picture."""
    width, height = _canvas(rng)
    image, draw, scale = _open(rng, width, height)
    quarters = rng.permutation(4)[:shapes]
    for quarter in quarters:
        radius = rng.uniform(0.12, 0.2) * min(width, height)
        x, y = (
            (side + rng.uniform(-0.4, 0.4)) * extent / 4 + extent / 4
            for side, extent in ((2 * (quarter % 2), width), (2 * (quarter // 2), height))
        )
        _draw(rng, draw, _shape(rng, x, y, radius), scale)
    return _close(image, width, height)


def caption_sample(rng: np.random.Generator, level: int) -> Sample:
    """A caption: level 0 has one shape, from level 1 mostly two."""
    two = level > 0 and rng.random() < 0.85
    scene = random_scene(rng, 2 if two else 1)
    prompt = CAPTION_PROMPT if rng.random() < 0.6 else str(rng.choice(CAPTION_PROMPTS))
    return Sample([image_turn(prompt)], scene.caption, images=[scene.image])


def _canvas(rng: np.random.Generator) -> tuple[int, int]:
    side = rng.uniform(220, 520)
    aspect = float(np.exp(rng.uniform(-0.55, 0.55)))
    return round(side * aspect**0.5), round(side / aspect**0.5)


def _open(rng: np.random.Generator, width: int, height: int) -> tuple[Image.Image, ImageDraw.ImageDraw, int]:
    """A canvas twice as large as the picture, so that edges come out smooth."""
    if rng.random() < 0.75:
        background = (255, 255, 255) if rng.random() < 0.4 else tuple(int(rng.integers(225, 256)) for _ in range(3))
    else:
        grey = int(rng.integers(0, 60))
        background = (grey, grey, grey)
    image = Image.new("RGB", (width * 2, height * 2), background)
    return image, ImageDraw.Draw(image), 2


def _close(image: Image.Image, width: int, height: int) -> Image.Image:
    return image.resize((width, height), Image.Resampling.BOX)


def _shape(rng: np.random.Generator, x: float, y: float, radius: float) -> Shape:
    return Shape(str(rng.choice(list(COLOURS))), str(rng.choice(SHAPES)), x, y, radius)


def _pair(rng: np.random.Generator, width: int, height: int) -> tuple[tuple[Shape, ...], str]:
    """Two shapes apart, and on which side the first lies of the second."""
    side = min(width, height)
    horizontal = rng.random() < 0.5
    long, short = (width, height) if horizontal else (height, width)
    while True:
        radii = rng.uniform(0.11, 0.21, 2) * side
        a, b = (rng.uniform(r * 1.05, long - r * 1.05) for r in radii)
        c, d = (rng.uniform(r * 1.05, short - r * 1.05) for r in radii)
        if abs(a - b) > 1.15 * radii.sum() and abs(a - b) > 1.5 * abs(c - d):
            break
    order = (0, 1) if a < b else (1, 0)
    places = [(a, c), (b, d)] if horizontal else [(c, a), (d, b)]
    shapes = [_shape(rng, *places[i], radii[i]) for i in order]
    while (shapes[0].colour, shapes[0].kind) == (shapes[1].colour, shapes[1].kind):
        shapes[1] = _shape(rng, *places[order[1]], radii[order[1]])
    return tuple(shapes), "left of" if horizontal else "above"


def _draw(rng: np.random.Generator, draw: ImageDraw.ImageDraw, shape: Shape, scale: int) -> None:
    """The filled shape, its colour a little off the table's, sometimes with a darker outline."""
    base = np.array(COLOURS[shape.colour]) + rng.integers(-14, 15, 3)
    fill = tuple(int(v) for v in np.clip(base, 0, 255))
    outline = tuple(v // 2 for v in fill) if rng.random() < 0.25 else None
    x, y, r = shape.x_px * scale, shape.y_px * scale, shape.radius_px * scale
    line = max(2, int(r * 0.08))
    if shape.kind == "circle":
        draw.ellipse((x - r, y - r, x + r, y + r), fill=fill, outline=outline, width=line)
    elif shape.kind == "square":
        h = r * 0.86
        draw.rectangle((x - h, y - h, x + h, y + h), fill=fill, outline=outline, width=line)
    elif shape.kind == "triangle":
        corners = [(x, y - r), (x - 0.95 * r, y + 0.75 * r), (x + 0.95 * r, y + 0.75 * r)]
        draw.polygon(corners, fill=fill, outline=outline, width=line)
    else:
        spokes = np.pi * (np.arange(10) / 5 - 0.5)
        reach = np.where(np.arange(10) % 2 == 0, r * 1.05, r * 0.45)
        corners = list(zip(x + reach * np.cos(spokes), y + reach * np.sin(spokes), strict=True))
        draw.polygon(corners, fill=fill, outline=outline, width=line)
