"""A picture as sixels: bands of six rows, and in each band one line of characters for every colour in it.

A character is "?" plus six bits, the topmost pixel the lowest. Of the two colours in the band

    # .            colour 0 has the bits 000001 and 000000, "@?"
    . #            colour 1 has the bits 000000 and 000010, "?A"

"$" goes back to the start of the band, "-" to the next one, "!5A" is "AAAAA". Pixels that no colour sets stay as the
terminal has them.
"""

from __future__ import annotations

import re

import numpy as np
from numpy.typing import NDArray
from PIL import Image

COLOURS = 32
_BAND_ROWS = 6
_OPAQUE = 128
_RUN = re.compile(r"(.)\1{3,}")


def sixel(picture: Image.Image) -> str:
    """`picture`, RGB or RGBA, in its `COLOURS` commonest colours."""
    alpha = np.asarray(picture.convert("RGBA"))[..., 3]  # [height, width]
    reduced = picture.convert("RGB").quantize(COLOURS)
    colours = np.where(alpha < _OPAQUE, -1, np.asarray(reduced, dtype=np.int16))  # [height, width]
    palette = np.array(reduced.getpalette(), dtype=np.int32).reshape(-1, 3)  # [colours, 3] of 0..255, sent as 0..100
    used = [int(colour) for colour in np.unique(colours) if colour >= 0]
    named = "".join("#{};2;{};{};{}".format(colour, *(palette[colour] * 100 + 127) // 255) for colour in used)
    bands = [_band(colours[at : at + _BAND_ROWS]) for at in range(0, len(colours), _BAND_ROWS)]
    return f'\x1bP0;1q"1;1;{picture.width};{picture.height}{named}{"-".join(bands)}\x1b\\'


def _band(rows: NDArray[np.int16]) -> str:
    """At most six rows of colours [rows, width], one line of sixels for each colour but -1."""
    weights = (1 << np.arange(len(rows)))[:, None]
    lines = []
    for colour in np.unique(rows):
        if colour >= 0:
            bits = ((rows == colour) * weights).sum(axis=0)  # [width]
            characters = (bits + ord("?")).astype(np.uint8).tobytes().decode().rstrip("?")
            lines.append(f"#{colour}" + _RUN.sub(lambda run: f"!{len(run[0])}{run[1]}", characters))
    return "$".join(lines)
