"""A dense page -> strips that the model sees at full resolution, and the texts of the strips -> one text.

A page of 2480 x 3508 px (A4 at 300 dpi) holds 51 x 73 patches, three times what one picture may take. It is cut across,
never down: a strip is as wide as the page, so that no line is cut in two, and goes over the next one by some lines:

    +-----------+ 0        strip 1
    |           |
    +- - - - - -+ 912      strip 2 begins     what both show comes twice, and is told
    +-----------+ 1008     strip 1 ends       by the lines that end one and begin the other
"""

from __future__ import annotations

from dataclasses import dataclass
from difflib import SequenceMatcher

from gemma_mlx.inputs.image import BUDGETS, PATCH_SIDE_PX

TILE_TOKENS = BUDGETS[-1]
OVERLAP_PX = 2 * PATCH_SIDE_PX
"""At least a whole line of print at 300 dpi, whichever way the edge cuts the lines."""
LEAST_HEIGHT_PX = 4 * OVERLAP_PX
"""Strips are no lower: a page so wide that they would be is scaled down in width."""
_MOST_LINES = 8
"""No more lines are taken for the same: of the smallest print that can be read, so many fit the overlap."""
_SAME_LINE = 0.8
"""How alike two readings of a line are, at least."""


@dataclass(frozen=True)
class Strip:
    """Rows `top:bottom` of a page, in its own pixels."""

    top: int
    bottom: int


def strips(width_px: int, height_px: int) -> list[Strip]:
    """The strips to read a page by, from the top; one for a page that fits whole at its full resolution."""
    across = -(-width_px // PATCH_SIDE_PX)
    most_px = max(LEAST_HEIGHT_PX, TILE_TOKENS // across * PATCH_SIDE_PX)
    if height_px <= most_px:
        return [Strip(0, height_px)]
    count = -(-(height_px - OVERLAP_PX) // (most_px - OVERLAP_PX))
    # Evenly, so that the last one is not a sliver.
    each_px = -(-(height_px + (count - 1) * OVERLAP_PX) // count)
    tops = [index * (each_px - OVERLAP_PX) for index in range(count)]
    return [Strip(top, min(height_px, top + each_px)) for top in tops]


def joined(texts: list[str]) -> str:
    """The texts of strips, in their order, as one: lines that end one and begin the next come once."""
    lines: list[str] = []
    for text in texts:
        lines = _joined(lines, [line.rstrip() for line in text.strip("\n").splitlines()])
    return "\n".join(lines)


def _joined(above: list[str], below: list[str]) -> list[str]:
    """The longest run of lines at the seam that both hold, once. Its first and last line may be cut by an edge.

    `above` may go on behind that run with one line, of which it saw the upper half, and `below` begin before it with
    one, of which it saw the lower half: those two are left out.
    """
    for length in range(min(len(above), len(below), _MOST_LINES), 0, -1):
        for cut_above in (0, 1):
            for cut_below in (0, 1):
                end = len(above) - cut_above
                if end - length < 0 or cut_below + length > len(below):
                    continue
                pairs = zip(above[end - length : end], below[cut_below : cut_below + length], strict=True)
                if all(_alike(first, second) for first, second in pairs):
                    return above[:end] + below[cut_below + length :]
    return above + below


def _alike(first: str, second: str) -> bool:
    """Whether both are readings of one line. Lines of a table differ in their digits alone, and all of them count."""
    first, second = (" ".join(line.split()).casefold() for line in (first, second))
    if first == second:
        return True
    digits = ["".join(filter(str.isdigit, line)) for line in (first, second)]
    return digits[0] == digits[1] and SequenceMatcher(None, first, second, autojunk=False).ratio() >= _SAME_LINE
