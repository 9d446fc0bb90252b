"""A small picture in the terminal, in the best way that it is known to have: kitty's, iTerm2's, sixel, or blocks.

Which way is read off the environment; the terminal is not asked, as its reply would mix with what a person types. What
cannot be known is drawn with "▀", whose two halves, text and background colour, are two pixels of a cell of 1 : 2.
"""

from __future__ import annotations

import base64
import math
from collections.abc import Mapping
from io import BytesIO
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from gemma_mlx.inputs.image import open_image
from gemma_mlx.terminal.screen.sixel import sixel

Graphics = Literal["kitty", "iterm2", "sixel", "blocks", "blocks256", "none"]
"""blocks256 draws in the 256 colours that every terminal of today knows, blocks in all."""

MAX_COLUMNS, MAX_ROWS = 48, 16
MAX_CHARS = 100_000
"""A thumbnail that would take more to send is sent with fewer pixels."""
_MAX_PNG_CHARS = 95_000
_CELL_PX = (10, 20)
_SIXEL_CELL_PX = (8, 16)
"""Sixels are not scaled by the terminal: with larger cells than these the thumbnail is smaller than it could be."""
_KITTY_CHUNK_CHARS = 4096

_OPAQUE = 128
_LEVELS = (0, 95, 135, 175, 215, 255)
_PALETTE_START = 16
_PALETTE = np.array(
    [(red, green, blue) for red in _LEVELS for green in _LEVELS for blue in _LEVELS]
    + [(grey, grey, grey) for grey in range(8, 248, 10)],
    dtype=np.int32,
)
"""xterm's colours 16 to 255; people choose those before as they like."""

_OF_PROGRAM: dict[str, Graphics] = {"ghostty": "kitty", "WezTerm": "iterm2", "iTerm.app": "iterm2"}
_OF_TERM: dict[str, Graphics] = {
    "xterm-kitty": "kitty",
    "xterm-ghostty": "kitty",
    "wezterm": "iterm2",
    "foot": "sixel",
    "mlterm": "sixel",
    "contour": "sixel",
    "vt340": "sixel",
}
_KONSOLE_WITH_KITTY = 220400


def graphics_here(environ: Mapping[str, str]) -> Graphics:
    """How pictures can be shown in the terminal that `environ` tells of; "none" where colours are not wanted."""
    term, program = environ.get("TERM", ""), environ.get("TERM_PROGRAM", "")
    if environ.get("NO_COLOR") or term in ("", "dumb"):
        return "none"
    if environ.get("TMUX") or term.startswith("tmux"):
        return "blocks"  # tmux itself finds the nearest colours that the terminal has
    if environ.get("STY") or term.startswith("screen"):
        return "blocks256"
    if program in _OF_PROGRAM:
        return _OF_PROGRAM[program]
    known = _OF_TERM.get(term) or _OF_TERM.get(term.partition("-")[0])
    if known:
        return known
    if not program and environ.get("LC_TERMINAL") == "iTerm2":  # goes along over ssh
        return "iterm2"
    version = environ.get("KONSOLE_VERSION", "")
    if not program and version.isdecimal() and int(version) >= _KONSOLE_WITH_KITTY:
        return "kitty"
    if environ.get("COLORTERM") in ("truecolor", "24bit") or term.endswith("-direct"):
        return "blocks"
    return "blocks256" if "256color" in term or term.startswith(("xterm", "linux")) else "none"


def thumbnail(picture: Image.Image, graphics: Graphics, columns: int, rows: int) -> str:
    """`picture` as text for the terminal, on lines of its own, at most `columns` wide and `rows` high; "" for "none".

    Not larger than `MAX_COLUMNS` x `MAX_ROWS`, nor than a pixel of the picture to half a cell. What is transparent in
    the picture is so in the terminal.
    """
    if graphics == "none":
        return ""
    picture = _rgb_or_rgba(picture)
    width, half_rows = _halves(picture, min(columns, MAX_COLUMNS), min(rows, MAX_ROWS))
    cells = (width, (half_rows + 1) // 2)
    if graphics == "kitty":
        return _kitty(_png(picture, cells), cells)
    if graphics == "iterm2":
        return _iterm2(_png(picture, cells), cells)
    if graphics == "sixel":
        return _sixel(picture, width, half_rows)
    return _blocks(_scaled(picture, (width, half_rows)), graphics == "blocks")


def _rgb_or_rgba(picture: Image.Image) -> Image.Image:
    if picture.has_transparency_data:
        return picture.convert("RGBA")
    return picture if picture.mode == "RGB" else open_image(picture)


def _halves(picture: Image.Image, columns: int, rows: int) -> tuple[int, int]:
    """(width, height) in halves of cells, which are square, that `picture` fills."""
    scale = min(columns / picture.width, 2 * rows / picture.height, 1)
    return max(1, round(picture.width * scale)), max(1, round(picture.height * scale))


def _scaled(picture: Image.Image, size: tuple[int, int]) -> Image.Image:
    return picture.resize(size, Image.Resampling.LANCZOS, reducing_gap=3.0)


def _png(picture: Image.Image, cells: tuple[int, int]) -> str:
    """base64 of a PNG with as many pixels as `cells` have or can be sent."""
    scale = min(cells[0] * _CELL_PX[0] / picture.width, cells[1] * _CELL_PX[1] / picture.height, 1)
    while True:
        file = BytesIO()
        size = max(1, round(picture.width * scale)), max(1, round(picture.height * scale))
        _scaled(picture, size).save(file, "PNG", optimize=True)
        encoded = base64.b64encode(file.getvalue()).decode()
        if len(encoded) <= _MAX_PNG_CHARS or size == (1, 1):
            return encoded
        scale *= _next_scale(len(encoded))


def _next_scale(chars: int) -> float:
    """By how much to shrink what took `chars`, of which there are about as many as there are pixels."""
    return 0.95 * min(1, math.sqrt(_MAX_PNG_CHARS / chars))


def _kitty(png: str, cells: tuple[int, int]) -> str:
    chunks = [png[at : at + _KITTY_CHUNK_CHARS] for at in range(0, len(png), _KITTY_CHUNK_CHARS)]
    parts = []
    for index, chunk in enumerate(chunks):
        control = f"a=T,f=100,q=2,c={cells[0]},r={cells[1]}," if index == 0 else ""
        parts.append(f"\x1b_G{control}m={int(index < len(chunks) - 1)};{chunk}\x1b\\")
    return "".join(parts) + "\n"


def _iterm2(png: str, cells: tuple[int, int]) -> str:
    return (
        f"\x1b]1337;File=inline=1;size={len(base64.b64decode(png))};width={cells[0]};height={cells[1]};"
        f"preserveAspectRatio=1:{png}\x07\n"
    )


def _sixel(picture: Image.Image, width: int, half_rows: int) -> str:
    scale = 1.0
    while True:
        size = max(1, int(width * _SIXEL_CELL_PX[0] * scale)), max(1, int(half_rows * _SIXEL_CELL_PX[0] * scale))
        encoded = sixel(_scaled(picture, size))
        if len(encoded) < MAX_CHARS or size == (1, 1):
            return encoded + "\n"
        scale *= _next_scale(len(encoded))


def _blocks(pixels: Image.Image, all_colours: bool) -> str:
    """Two rows of `pixels` to a line."""
    values = np.asarray(pixels.convert("RGBA"))  # [height, width, 4]
    if len(values) % 2:
        values = np.concatenate([values, np.zeros_like(values[:1])])  # the lower half of the last line is not drawn
    colours = _colours(values, all_colours)
    lines = []
    for upper, lower in zip(colours[::2], colours[1::2], strict=True):
        line, last = "", ""
        for top, bottom in zip(upper, lower, strict=True):
            style, character = _cell(top, bottom)
            line += character if style == last else style + character
            last = style
        lines.append(line + "\x1b[0m\n")
    return "".join(lines)


def _cell(top: str, bottom: str) -> tuple[str, str]:
    """The style and the character that show two colours, "" for the terminal's own background."""
    if top and bottom:
        return f"\x1b[38;{top};48;{bottom}m", "▀"
    if top or bottom:
        return f"\x1b[0;38;{top or bottom}m", "▀" if top else "▄"
    return "\x1b[0m", " "


def _colours(values: NDArray[np.uint8], all_colours: bool) -> list[list[str]]:
    """[height, width, 4] of RGBA -> what follows 38; or 48; for each, "" where it is transparent."""
    rgb, opaque = values[..., :3].astype(np.int32), values[..., 3] >= _OPAQUE
    if all_colours:
        named = [[f"2;{red};{green};{blue}" for red, green, blue in row] for row in rgb.tolist()]
    else:
        distances = np.square(rgb[:, :, None] - _PALETTE).sum(axis=-1)  # [height, width, 240]
        named = [[f"5;{index + _PALETTE_START}" for index in row] for row in distances.argmin(axis=-1).tolist()]
    return [[name if seen else "" for name, seen in zip(*row, strict=True)] for row in zip(named, opaque, strict=True)]
