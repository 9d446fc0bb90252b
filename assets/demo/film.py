"""An asciinema recording as an animated GIF: each screen that stood a while, in the font that matplotlib brings."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import matplotlib
import pyte
from PIL import Image, ImageDraw, ImageFont

SIZE_PX = 15
CELL_PX = (9, 18)
MARGIN_PX = 10
FRAME_S = 0.1
"""No two pictures follow each other faster."""
LONGEST_S = 2.5
"""No screen stands longer: nobody needs to watch a machine think."""
END_S = 4.0
BACK, FRONT = "#16181d", "#d5d8de"
COLOURS = {
    "black": "#3b4048", "red": "#e06c75", "green": "#98c379", "brown": "#e5c07b", "blue": "#61afef",
    "magenta": "#c678dd", "cyan": "#56b6c2", "white": "#d5d8de", "brightblack": "#7f848e", "brightred": "#ff7b85",
    "brightgreen": "#b5e890", "brightbrown": "#ffd68a", "brightblue": "#7cc3ff", "brightmagenta": "#dd8cf5",
    "brightcyan": "#6fd3df", "brightwhite": "#ffffff",
}  # fmt: skip


def write_gif(cast: Path, gif: Path) -> None:
    """Draws the recording at `cast` into `gif`."""
    frames, durations_ms = [], []
    for picture, stands_s in _frames(cast):
        frames.append(picture.quantize(96, dither=Image.Dither.NONE))
        durations_ms.append(round(stands_s * 1000))
    frames[0].save(gif, save_all=True, append_images=frames[1:], duration=durations_ms, loop=0, optimize=True)


def _frames(cast: Path) -> Iterator[tuple[Image.Image, float]]:
    header, *events = [json.loads(line) for line in cast.read_text(encoding="utf-8").splitlines()]
    screen = _Screen(header["width"], header["height"])
    stream = pyte.Stream(screen)
    folder = Path(matplotlib.get_data_path()) / "fonts" / "ttf"
    fonts = [ImageFont.truetype(folder / f"DejaVuSansMono{kind}.ttf", SIZE_PX) for kind in ("", "-Bold")]
    last, waiting_s = None, 0.0
    for index, (at_s, _, data) in enumerate(events):
        stream.feed(data)
        until_s = events[index + 1][0] if index + 1 < len(events) else at_s + END_S
        waiting_s += until_s - at_s
        if waiting_s < FRAME_S:
            continue
        picture = _draw(screen, fonts)
        if last is not None and picture.tobytes() == last[0].tobytes():
            last = (last[0], last[1] + waiting_s)
        else:
            if last is not None:
                yield last[0], min(last[1], LONGEST_S)
            last = (picture, waiting_s)
        waiting_s = 0.0
    if last is not None:
        yield last[0], max(last[1], END_S)


class _Screen(pyte.Screen):
    """pyte knows no faint text, which is half of what a chat says beside the answer."""

    def select_graphic_rendition(self, *attributes: int, **_: object) -> None:
        left, shown = list(attributes or (0,)), []
        while left:
            number = left.pop(0)
            if number in (38, 48):  # a colour follows: 5 and its number, or 2 and its three parts
                count = 2 if left[:1] == [5] else 4
                shown += [number, *left[:count]]
                del left[:count]
            else:
                shown += {2: [90], 22: [22, 39]}.get(number, [number])
        super().select_graphic_rendition(*shown)


def _draw(screen: pyte.Screen, fonts: list[ImageFont.FreeTypeFont]) -> Image.Image:
    width_px, height_px = CELL_PX
    size = (screen.columns * width_px + 2 * MARGIN_PX, screen.lines * height_px + 2 * MARGIN_PX)
    picture = Image.new("RGB", size, BACK)
    draw = ImageDraw.Draw(picture)
    for row in range(screen.lines):
        for column in range(screen.columns):
            cell = screen.buffer[row][column]
            front, back = _colour(cell.fg, FRONT), _colour(cell.bg, BACK)
            if cell.reverse:
                front, back = back, front
            if (column, row) == (screen.cursor.x, screen.cursor.y) and not screen.cursor.hidden:
                front, back = BACK, FRONT
            left, top = MARGIN_PX + column * width_px, MARGIN_PX + row * height_px
            if back != BACK:
                draw.rectangle((left, top, left + width_px - 1, top + height_px - 1), fill=back)
            if cell.data == "▀":  # drawn, as a font leaves gaps
                draw.rectangle((left, top, left + width_px - 1, top + height_px // 2 - 1), fill=front)
            elif cell.data.strip():
                draw.text((left, top), cell.data, font=fonts[cell.bold], fill=front)
    return picture


def _colour(name: str, otherwise: str) -> str:
    if name == "default":
        return otherwise
    return COLOURS.get(name, f"#{name}" if len(name) == 6 else otherwise)
