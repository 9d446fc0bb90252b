from __future__ import annotations

import itertools

from hypothesis import given
from hypothesis import strategies as st

from gemma_mlx.decoding.prefill import chunk_bounds


def test_without_images_chunks_are_even() -> None:
    assert chunk_bounds(0, 10, [], 4) == [(0, 4), (4, 8), (8, 10)]


def test_an_image_that_would_be_cut_moves_to_the_next_chunk() -> None:
    assert chunk_bounds(0, 10, [(3, 6)], 4) == [(0, 3), (3, 7), (7, 10)]


def test_an_image_longer_than_a_chunk_gets_a_chunk_of_its_own_length() -> None:
    assert chunk_bounds(0, 12, [(2, 10)], 4) == [(0, 2), (2, 10), (10, 12)]


def test_an_image_that_ends_with_its_chunk_stays() -> None:
    assert chunk_bounds(0, 8, [(2, 4)], 4) == [(0, 4), (4, 8)]


@given(st.data())
def test_chunks_cover_everything_once_and_never_cut_an_image(data: st.DataObject) -> None:
    edges = sorted(data.draw(st.sets(st.integers(0, 200), max_size=12)))
    images = list(zip(edges[::2], edges[1::2], strict=False))
    length, chunk = data.draw(st.integers(1, 200)), data.draw(st.integers(1, 40))
    images = [image for image in images if image[1] <= length]
    bounds = chunk_bounds(0, length, images, chunk)
    assert bounds[0][0] == 0
    assert bounds[-1][1] == length
    assert all(previous[1] == following[0] for previous, following in itertools.pairwise(bounds))
    inner = {end for _, end in bounds[:-1]}
    assert not any(start < end < stop for start, stop in images for end in inner)
    longest_image = max((stop - start for start, stop in images), default=0)
    assert all(0 < end - begin <= max(chunk, longest_image) for begin, end in bounds)
