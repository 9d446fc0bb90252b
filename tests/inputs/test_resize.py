from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gemma_mlx.inputs.resize import resize_bicubic


@settings(deadline=None)
@given(level=st.integers(0, 255), size=st.tuples(*[st.integers(1, 60)] * 4))
def test_flat_picture_stays_flat(level: int, size: tuple[int, int, int, int]) -> None:
    resized = resize_bicubic(np.full((size[0], size[1], 3), level, dtype=np.uint8), size[2], size[3])
    assert resized.shape == (size[3], size[2], 3)
    assert (resized == level).all()


def test_enlarged_step_follows_the_cubic_kernel_within_bytes() -> None:
    step = np.repeat(np.array([[0, 0, 255, 255]], dtype=np.uint8)[..., None], 3, axis=2)
    row = resize_bicubic(step, 12, 1)[0, :, 0]
    # Two thirds and five thirds of a sample away the kernel is 1/3 and -1/27: 255 * 8/27 = 76.
    assert row.tolist() == [0, 0, 0, 0, 0, 76, 179, 255, 255, 255, 255, 255]


def test_shrinking_averages_instead_of_picking() -> None:
    stripes = np.tile(np.array([0, 255], dtype=np.uint8), 300)[None, :, None].repeat(3, axis=2)
    assert np.ptp(resize_bicubic(stripes, 60, 1)[0, 10:50, 0].astype(int) - 127) <= 2


@pytest.mark.reference
@settings(deadline=None, max_examples=60)
@given(
    size=st.tuples(*[st.integers(1, 300)] * 2),
    target=st.tuples(*[st.integers(1, 12)] * 2),
    seed=st.integers(0, 2**32 - 1),
)
def test_resize_equals_torch_on_bytes(size: tuple[int, int], target: tuple[int, int], seed: int) -> None:
    import torch

    pixels = np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8)
    height, width = target[0] * 48, target[1] * 48
    image = torch.from_numpy(pixels).permute(2, 0, 1)[None]
    expected = torch.nn.functional.interpolate(image, size=[height, width], mode="bicubic", antialias=True)[0]
    assert np.array_equal(resize_bicubic(pixels, width, height), expected.permute(1, 2, 0).numpy())
