"""Clips drawn at random: frames, times and positions equal transformers', run live."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")

from gemma_mlx.inputs.video import prepare_video
from tests.golden.make_video import reference_video, stamps_of
from tests.inputs.clips import clip

pytestmark = pytest.mark.reference


@pytest.mark.parametrize("seed", range(20))
def test_random_clip_equals_live_reference(seed: int) -> None:
    random = np.random.default_rng(seed)
    count, frames = int(random.integers(1, 120)), None
    width_px, height_px = (int(side) for side in random.integers(10, 300, 2))
    fps = [Fraction(2), Fraction(10), Fraction(24_000, 1001), Fraction(30), Fraction(30_000, 1001)][seed % 5]
    if seed % 4 == 3 and count > 5:
        frames = int(random.integers(1, min(count, 60)))
    noise = list(random.integers(0, 256, (count, height_px, width_px, 3), dtype=np.uint8))
    forms = [("matroska", "ffv1"), ("avi", "ffv1"), ("mp4", "libx264"), ("mov", "mpeg4"), ("mpegts", "libx264")]
    form = forms[seed // 4]
    if form[1] != "ffv1":
        noise = [picture[: height_px // 2 * 2, : width_px // 2 * 2] for picture in noise]
    data = clip(noise, *form, fps=fps, codec_options={"g": "12"})
    patches, positions, text = reference_video(data, frames)
    found = prepare_video(data, frames)
    assert list(found.stamps) == stamps_of(text)
    assert np.array_equal(np.concatenate([frame.patches for frame in found.frames]), patches)
    assert np.array_equal(np.concatenate([frame.positions for frame in found.frames]), positions)
