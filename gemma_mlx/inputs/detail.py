"""How many soft tokens a picture is worth: the fewest that keep its fine structure.

Scaled down to a budget, a photo of a landscape loses a percent or two of its contrast and a page of small print half of
it, as strokes melt into grey. So pixels and density of text are weighed together: a big picture of big things is cheap.
"""

from __future__ import annotations

import numpy as np
from PIL import Image

from gemma_mlx.inputs.image import BUDGETS, fitted_size

MOST_LOST = 0.1
"""Share of the contrast (of the variance of brightness) that a budget may cost, against the largest one.

Print keeps letters of 6 px or more without their ascenders then, and photos take 280 tokens at most."""
MOST_LOST_READING = 0.03
"""The same where every letter counts."""


def auto_budget(image: Image.Image, most_lost: float = MOST_LOST) -> int:
    """The least of `BUDGETS` at which no more than `most_lost` of what `image` shows is lost."""
    most = fitted_size(image.width, image.height, BUDGETS[-1])
    finest = (min(image.width, most[0]), min(image.height, most[1]))
    grey = image.convert("L").resize(finest, Image.Resampling.BICUBIC, reducing_gap=2.0)
    values = np.asarray(grey, dtype=np.float32)  # [height, width]
    variance = float(values.var())
    for budget in BUDGETS[:-1]:
        width_px, height_px = fitted_size(image.width, image.height, budget)
        if width_px >= finest[0] and height_px >= finest[1]:
            return budget
        coarse = grey.resize((width_px, height_px), Image.Resampling.BICUBIC)
        back = np.asarray(coarse.resize(finest, Image.Resampling.BICUBIC), dtype=np.float32)
        if float(np.square(values - back).mean()) <= most_lost * variance:
            return budget
    return BUDGETS[-1]
