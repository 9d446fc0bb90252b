"""Masks as literal matrices, and every way of cutting them into blocks against the rule applied pair by pair."""

from __future__ import annotations

import mlx.core as mx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from gemma_mlx.model.masks import BlockSizes, QueryBlock, full_blocks, sliding_blocks

IMAGE_OF_THREE = [(2, 5)]


def matrix(drawn: str) -> NDArray[np.bool_]:
    return np.array([[mark == "1" for mark in line.split()] for line in drawn.strip().splitlines()])


def as_matrix(blocks: list[QueryBlock], offset: int, length: int, keys: int) -> NDArray[np.bool_]:
    """What `blocks` let be seen, [length, keys], key 0 at position 0."""
    visible = np.zeros((length, keys), bool)
    for block in blocks:
        queries, seen = block.stop - block.start, block.key_stop - block.key_start
        if block.mask is None:
            part = np.ones((queries, seen), bool)
        elif isinstance(block.mask, mx.array):
            part = np.array(block.mask)
        else:
            assert block.mask == "causal"
            part = np.tril(np.ones((queries, seen), bool), seen - queries)
        visible[block.start : block.stop, block.key_start : block.key_stop] = part
    return visible


FULL = matrix(
    """
    1 . . . . . .
    1 1 . . . . .
    1 1 1 . . . .
    1 1 1 1 . . .
    1 1 1 1 1 . .
    1 1 1 1 1 1 .
    1 1 1 1 1 1 1
    """
)
SLIDING_WITH_IMAGE = matrix(
    """
    1 . . . . . .
    1 1 . . . . .
    1 1 1 1 1 . .
    1 1 1 1 1 . .
    . 1 1 1 1 . .
    . . 1 1 1 1 .
    . . . 1 1 1 1
    """
)
SLIDING_WITH_IMAGE_OF_FIVE = matrix(
    """
    1 . . . . . .
    1 1 1 1 1 1 .
    1 1 1 1 1 1 .
    . 1 1 1 1 1 .
    . . 1 1 1 1 .
    . . . 1 1 1 .
    . . . . 1 1 1
    """
)


@pytest.mark.parametrize("block_tokens", range(1, 9))
def test_full_layer_is_causal_also_in_an_image(block_tokens: int) -> None:
    assert (as_matrix(full_blocks(0, 7, BlockSizes(full_tokens=block_tokens)), 0, 7, 7) == FULL).all()


@pytest.mark.parametrize("block_tokens", range(1, 9))
def test_sliding_layer_sees_the_rest_of_an_image(block_tokens: int) -> None:
    blocks = sliding_blocks(0, 7, 4, IMAGE_OF_THREE, block_tokens)
    assert (as_matrix(blocks, 0, 7, 7) == SLIDING_WITH_IMAGE).all()


@pytest.mark.parametrize("block_tokens", range(1, 9))
def test_image_wider_than_the_window_sees_all_ahead_and_a_window_behind(block_tokens: int) -> None:
    """A window of 3 bounds what is behind a query; nothing but the image's end bounds what is ahead."""
    blocks = sliding_blocks(0, 7, 3, [(1, 6)], block_tokens)
    assert (as_matrix(blocks, 0, 7, 7) == SLIDING_WITH_IMAGE_OF_FIVE).all()


def test_two_images_side_by_side_do_not_see_each_other() -> None:
    expected = matrix(
        """
        1 1 . .
        1 1 . .
        1 1 1 1
        1 1 1 1
        """
    )
    assert (as_matrix(sliding_blocks(0, 4, 8, [(0, 2), (2, 4)], 4), 0, 4, 4) == expected).all()


def test_warm_chunk_is_masked_like_the_same_rows_of_a_cold_one() -> None:
    blocks = sliding_blocks(2, 5, 4, IMAGE_OF_THREE, 2)
    assert (as_matrix(blocks, 2, 5, 7) == SLIDING_WITH_IMAGE[2:]).all()


def test_decode_needs_no_mask() -> None:
    for offset in (0, 5, 100):
        assert [block.mask for block in full_blocks(offset, 1, BlockSizes())] == [None]
        assert [block.mask for block in sliding_blocks(offset, 1, 8, [], 256)] == [None]


@st.composite
def layouts(draw: st.DrawFn) -> tuple[int, int, int, int, list[tuple[int, int]]]:
    """(offset, length, window, block_tokens, images), the chunk cutting no image."""
    images, position = [], 0
    for gap, size in draw(st.lists(st.tuples(st.integers(0, 5), st.integers(1, 12)), max_size=4)):
        images.append((position + gap, position + gap + size))
        position += gap + size
    total = position + draw(st.integers(1, 10))
    cuts = [cut for cut in range(total + 1) if not any(start < cut < stop for start, stop in images)]
    offset = draw(st.sampled_from(cuts[:-1]))
    stop = draw(st.sampled_from([cut for cut in cuts if cut > offset]))
    return offset, stop - offset, draw(st.integers(1, 12)), draw(st.integers(1, 20)), images


@settings(max_examples=150, deadline=None)
@given(layouts())
def test_blocks_of_any_layout_follow_the_rule(layout: tuple[int, int, int, int, list[tuple[int, int]]]) -> None:
    offset, length, window, block_tokens, images = layout
    stop = offset + length
    image_of = {position: image for image in images for position in range(*image)}
    causal, sliding = np.zeros((length, stop), bool), np.zeros((length, stop), bool)
    for query in range(offset, stop):
        for key in range(stop):
            same_image = query in image_of and image_of[query] == image_of.get(key)
            causal[query - offset, key] = key <= query
            sliding[query - offset, key] = (key <= query or same_image) and key > query - window
    assert (
        as_matrix(full_blocks(offset, length, BlockSizes(full_tokens=block_tokens)), offset, length, stop) == causal
    ).all()
    blocks = sliding_blocks(offset, length, window, images, block_tokens)
    assert (as_matrix(blocks, offset, length, stop) == sliding).all()
    widest = max((stop - start for start, stop in images), default=0)
    for block in blocks:  # what bounds the scratch
        assert block.key_stop - block.key_start <= window - 1 + block_tokens + widest
