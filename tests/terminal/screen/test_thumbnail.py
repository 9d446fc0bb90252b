from __future__ import annotations

import base64
import re
from io import BytesIO

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from gemma_mlx.terminal.screen.thumbnail import (
    MAX_CHARS,
    MAX_COLUMNS,
    MAX_ROWS,
    Graphics,
    graphics_here,
    thumbnail,
)

PIXELS: list[Graphics] = ["kitty", "iterm2"]
ALL: list[Graphics] = [*PIXELS, "sixel", "blocks", "blocks256"]
_KITTY = re.compile(r"\x1b_G([^;]*);([A-Za-z0-9+/=]*)\x1b\\")
_ITERM2 = re.compile(r"\x1b\]1337;File=([^:]*):([A-Za-z0-9+/=]*)\x07\n")
_SIXEL = re.compile(r'\x1bP0;1q"1;1;(\d+);(\d+)([^\x1b]*)\x1b\\\n')


def _noise(width: int, height: int) -> Image.Image:
    return Image.fromarray(np.random.default_rng(5).integers(0, 256, (height, width, 3), dtype=np.uint8))


def _fields(text: str) -> dict[str, str]:
    return dict(field.split("=") for field in re.split("[,;]", text))


def _shown(text: str, graphics: Graphics) -> tuple[Image.Image, tuple[int, int]]:
    """The picture that the terminal gets, and on how many (columns, rows) it is to show it."""
    if graphics == "iterm2":
        match = _ITERM2.fullmatch(text)
        assert match
        fields = _fields(match[1])
        content = base64.b64decode(match[2])
        assert fields["inline"] == fields["preserveAspectRatio"] == "1"
        assert int(fields["size"]) == len(content)
        return Image.open(BytesIO(content)), (int(fields["width"]), int(fields["height"]))
    chunks = _KITTY.findall(text)
    assert "".join(f"\x1b_G{control};{chunk}\x1b\\" for control, chunk in chunks) + "\n" == text
    fields = _fields(chunks[0][0])
    assert (fields["a"], fields["f"], fields["q"]) == ("T", "100", "2")
    assert [control[-3:].lstrip(",") for control, _ in chunks] == ["m=1"] * (len(chunks) - 1) + ["m=0"]
    assert all(len(chunk) <= 4096 and (len(chunk) % 4 == 0) for _, chunk in chunks)
    content = base64.b64decode("".join(chunk for _, chunk in chunks))
    return Image.open(BytesIO(content)), (int(fields["c"]), int(fields["r"]))


def _decoded_sixel(text: str) -> NDArray[np.uint8]:
    """[height, width, 4] of RGBA, transparent where no colour was set."""
    match = _SIXEL.fullmatch(text)
    assert match
    width, height = int(match[1]), int(match[2])
    pixels = np.zeros((height + 6, width, 4), dtype=np.uint8)
    palette: dict[int, list[int]] = {}
    x = y = colour = 0
    for token in re.finditer(r"#(\d+)(?:;2;(\d+);(\d+);(\d+))?|(\$)|(-)|(?:!(\d+))?([?-~])", match[3]):
        if token[1]:
            colour = int(token[1])
            if token[2]:
                palette[colour] = [round(int(level) * 2.55) for level in token.group(2, 3, 4)]
        elif token[5] or token[6]:
            x, y = 0, y + 6 * bool(token[6])
        else:
            count = int(token[7] or 1)
            for bit in range(6):
                if (ord(token[8]) - 63) >> bit & 1:
                    pixels[y + bit, x : x + count] = [*palette[colour], 255]
            x += count
    assert not pixels[height:].any()
    return pixels[:height]


@pytest.mark.parametrize("graphics", PIXELS)
def test_the_terminal_gets_the_picture_itself(graphics: Graphics) -> None:
    picture = _noise(100, 60)
    shown, cells = _shown(thumbnail(picture, graphics, 20, 10), graphics)
    assert cells == (20, 6)
    assert np.array_equal(np.asarray(shown), np.asarray(picture))


@pytest.mark.parametrize("graphics", ALL)
@pytest.mark.parametrize(
    ("size", "cells"),
    [((1600, 800), (40, 10)), ((800, 1600), (12, 12)), ((1, 5000), (1, 12)), ((5000, 1), (40, 1)), ((1, 1), (1, 1))],
)
def test_its_shape_is_kept_in_cells_of_one_to_two(
    graphics: Graphics, size: tuple[int, int], cells: tuple[int, int]
) -> None:
    text = thumbnail(Image.linear_gradient("L").resize(size), graphics, 40, 12)
    assert text.endswith("\n")
    if graphics in PIXELS:
        assert _shown(text, graphics)[1] == cells
    elif graphics == "sixel":
        height, width = _decoded_sixel(text).shape[:2]
        assert (-(-width // 8), -(-height // 16)) == cells
    else:
        lines = re.sub("\x1b[^m]*m", "", text).splitlines()
        assert ({len(line) for line in lines}, len(lines)) == ({cells[0]}, cells[1])


@pytest.mark.parametrize("graphics", ALL)
def test_the_worst_picture_in_the_widest_window_is_cheap(graphics: Graphics) -> None:
    text = thumbnail(_noise(1200, 800), graphics, 500, 200)
    assert len(text) <= MAX_CHARS
    if graphics in PIXELS:
        shown, (columns, rows) = _shown(text, graphics)
        assert (columns, rows) == (MAX_ROWS * 3, MAX_ROWS) == (MAX_COLUMNS, MAX_ROWS)
        assert abs(shown.width / shown.height - 1.5) < 0.02


def test_sixels_are_the_picture() -> None:
    picture = Image.new("RGBA", (32, 20), (255, 0, 0, 255))
    picture.paste((0, 0, 255, 255), (0, 0, 16, 10))
    picture.paste((0, 255, 0, 0), (16, 10, 32, 20))
    decoded = _decoded_sixel(thumbnail(picture, "sixel", 32, 10))
    assert decoded.shape == (160, 256, 4)
    corners = decoded[[2, 2, -3, -3], [2, -3, 2, -3]].tolist()
    assert corners == [[0, 0, 255, 255], [255, 0, 0, 255], [255, 0, 0, 255], [0, 0, 0, 0]]


def test_sixels_of_a_photo_are_near_it() -> None:
    y, x = np.mgrid[:96, :128]
    photo = np.stack([2 * x, 2 * y, 255 - x - y], axis=-1).clip(0, 255).astype(np.uint8)
    decoded = _decoded_sixel(thumbnail(Image.fromarray(photo), "sixel", 16, 6))
    assert decoded.shape == (96, 128, 4)
    assert np.abs(decoded[..., :3].astype(int) - photo).mean() < 12


def test_blocks_are_two_pixels_each() -> None:
    picture = Image.new("RGBA", (2, 3))
    for at, colour in {(0, 0): (255, 0, 0), (0, 1): (0, 0, 255), (1, 1): (8, 8, 8), (0, 2): (1, 2, 3)}.items():
        picture.putpixel(at, (*colour, 255))
    assert thumbnail(picture, "blocks", 10, 10) == (
        "\x1b[38;2;255;0;0;48;2;0;0;255m▀\x1b[0;38;2;8;8;8m▄\x1b[0m\n\x1b[0;38;2;1;2;3m▀\x1b[0m \x1b[0m\n"
    )
    assert thumbnail(picture, "blocks256", 10, 10) == (
        "\x1b[38;5;196;48;5;21m▀\x1b[0;38;5;232m▄\x1b[0m\n\x1b[0;38;5;16m▀\x1b[0m \x1b[0m\n"
    )
    assert thumbnail(Image.new("RGB", (8, 2)), "blocks", 10, 10).count("38;") == 1  # a style is sent when it changes
    assert thumbnail(picture, "none", 10, 10) == ""


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "CMYK", "I;16", "RGBA", "YCbCr"])
def test_every_kind_of_picture(mode: str) -> None:
    picture = Image.new(mode, (30, 30))
    shown, cells = _shown(thumbnail(picture, "kitty", 10, 10), "kitty")
    assert cells == (10, 5)
    assert shown.mode == ("RGBA" if mode in ("LA", "RGBA") else "RGB")


@pytest.mark.parametrize("graphics", PIXELS)
def test_transparent_stays_transparent(graphics: Graphics) -> None:
    shown, _ = _shown(thumbnail(Image.new("RGBA", (50, 50), (9, 9, 9, 0)), graphics, 10, 10), graphics)
    assert np.asarray(shown)[..., 3].max() == 0


@pytest.mark.parametrize(
    ("environ", "graphics"),
    [
        ("", "none"),
        ("TERM=dumb COLORTERM=truecolor", "none"),
        ("TERM=xterm-kitty NO_COLOR=1", "none"),
        ("TERM=xterm-kitty NO_COLOR=", "kitty"),
        ("TERM=xterm-kitty KITTY_WINDOW_ID=1", "kitty"),
        ("TERM=xterm-kitty SSH_CONNECTION=1", "kitty"),
        ("TERM=xterm-256color KITTY_WINDOW_ID=1", "blocks256"),
        ("TERM=xterm-256color TERM_PROGRAM=ghostty", "kitty"),
        ("TERM=xterm-256color TERM_PROGRAM=WezTerm", "iterm2"),
        ("TERM=xterm-256color TERM_PROGRAM=iTerm.app LC_TERMINAL=iTerm2", "iterm2"),
        ("TERM=xterm-256color LC_TERMINAL=iTerm2 SSH_CONNECTION=1", "iterm2"),
        ("TERM=xterm-256color TERM_PROGRAM=vscode LC_TERMINAL=iTerm2 COLORTERM=truecolor", "blocks"),
        ("TERM=xterm-256color TERM_PROGRAM=Apple_Terminal", "blocks256"),
        ("TERM=xterm-256color KONSOLE_VERSION=220401 COLORTERM=truecolor", "kitty"),
        ("TERM=xterm-256color KONSOLE_VERSION=210800 COLORTERM=truecolor", "blocks"),
        ("TERM=foot-direct COLORTERM=truecolor", "sixel"),
        ("TERM=foot", "sixel"),
        ("TERM=mlterm-256color", "sixel"),
        ("TERM=xterm XTERM_VERSION=XTerm(390)", "blocks256"),
        ("TERM=xterm-direct", "blocks"),
        ("TERM=xterm-256color SSH_CONNECTION=1", "blocks256"),
        ("TERM=tmux-256color TMUX=/tmp/x TERM_PROGRAM=tmux LC_TERMINAL=iTerm2", "blocks"),
        ("TERM=xterm-kitty TMUX=/tmp/x", "blocks"),
        ("TERM=screen.xterm-256color STY=1 COLORTERM=truecolor TERM_PROGRAM=iTerm.app", "blocks256"),
        ("TERM=vt100", "none"),
    ],
)
def test_what_the_environment_tells_of_a_terminal(environ: str, graphics: Graphics) -> None:
    assert graphics_here(dict(pair.split("=", 1) for pair in environ.split())) == graphics
