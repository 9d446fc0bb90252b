from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gemma_mlx.inputs.image import fitted_size
from gemma_mlx.inputs.tiles import LEAST_HEIGHT_PX, OVERLAP_PX, TILE_TOKENS, Strip, joined, strips


@given(st.integers(1, 9000), st.integers(1, 30_000))
def test_strips_cover_the_page_in_order_and_overlap(width_px: int, height_px: int) -> None:
    cut = strips(width_px, height_px)
    assert cut[0].top == 0
    assert cut[-1].bottom == height_px
    for above, below in pairwise(cut):
        assert above.top < below.top
        assert above.bottom - below.top == OVERLAP_PX
    heights = [strip.bottom - strip.top for strip in cut]
    assert max(heights) - min(heights) <= len(cut)


@pytest.mark.parametrize(("width_px", "height_px"), [(2480, 3508), (1240, 4000), (1000, 20_000), (4000, 3000)])
def test_a_strip_is_seen_at_its_full_resolution(width_px: int, height_px: int) -> None:
    for strip in strips(width_px, height_px):
        height = strip.bottom - strip.top
        if height > LEAST_HEIGHT_PX:
            assert fitted_size(width_px, height, TILE_TOKENS)[0] >= width_px * 0.98


def test_a_page_that_fits_is_one_piece() -> None:
    assert strips(1240, 1754) == [Strip(0, 1754)]
    assert strips(1, 1) == [Strip(0, 1)]
    assert len(strips(2480, 3508)) > 1


LINES = [f"Line {index} says {word}" for index, word in enumerate(["river", "house", "table", "moon", "paper"] * 6)]


@settings(deadline=None)
@given(st.integers(3, 12), st.integers(1, 3), st.booleans(), st.booleans())
def test_a_page_read_in_strips_is_the_page(each: int, shared: int, cut_above: bool, cut_below: bool) -> None:
    """Strips that share whole lines; the edge of one may show a line half, which is then read as rubbish."""
    texts = []
    for start in range(0, len(LINES), each):
        lines = LINES[start : start + each + shared]
        last = start + each + shared >= len(LINES)
        if cut_above and start:
            lines = ["~~ -- ~~", *lines]
        if cut_below and not last:
            lines = [*lines, "_ . _ ."]
        texts.append("\n".join(lines))
        if last:
            break
    assert joined(texts).splitlines() == LINES


def test_nothing_is_lost_where_strips_share_no_line() -> None:
    assert joined(["one\ntwo", "three\nfour"]) == "one\ntwo\nthree\nfour"
    assert joined(["", "one", ""]) == "one"
    assert joined(["only"]) == "only"


def test_a_line_read_a_little_differently_comes_once() -> None:
    first, second = "Total amount due: 1,240.00 EUR", "Total amount due: 1.240.00 EUR"
    assert joined([f"Invoice\n{first}", f"{second}\nThank you"]).splitlines() == ["Invoice", first, "Thank you"]


def test_rows_of_a_table_that_look_alike_all_stay() -> None:
    assert joined(["Apples 3 kg\nPears 4 kg", "Pears 5 kg\nPlums 6 kg"]).count("Pears") == 2


def test_rows_put_together_again_are_the_page() -> None:
    page = np.random.default_rng(0).integers(0, 255, (3508, 40))
    rows: list[np.ndarray] = []
    for strip in strips(2480, 3508):
        rows.append(page[strip.top + (OVERLAP_PX if rows else 0) : strip.bottom])
    assert (np.concatenate(rows) == page).all()
