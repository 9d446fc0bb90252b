from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from gemma_mlx.inputs.pauses import HOP_SAMPLES, HOPS_PER_S, SpeechFinder

RATE_HZ = 16_000


def spoken(seconds: float, rng: np.random.Generator, level: float = 0.2) -> NDArray[np.float32]:
    """A tone that swells and fades four times a second, as syllables do."""
    times = np.arange(int(seconds * RATE_HZ)) / RATE_HZ
    swell = 0.15 + np.abs(np.sin(np.pi * 4 * times))
    return np.asarray(level * swell * np.sin(2 * np.pi * 180 * times + rng.uniform(0, 6)), dtype=np.float32)


def quiet(seconds: float, rng: np.random.Generator, noise: float) -> NDArray[np.float32]:
    return rng.normal(0, noise, int(seconds * RATE_HZ)).astype(np.float32) if noise else np.zeros(
        int(seconds * RATE_HZ), np.float32)  # fmt: skip


def found(samples: NDArray[np.float32]) -> list[bool]:
    finder = SpeechFinder()
    return finder.push(samples) + finder.finish()


def runs(flags: list[bool]) -> list[tuple[float, float]]:
    """(begin, end) in seconds of each stretch of speech; gaps of less than 0.2 s do not end one."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], flags, [False]]).astype(np.int8))).reshape(-1, 2)
    merged: list[list[float]] = []
    for begin, end in (edges / HOPS_PER_S).tolist():
        if merged and begin - merged[-1][1] < 0.2:
            merged[-1][1] = end
        else:
            merged.append([begin, end])
    return [(begin, end) for begin, end in merged]


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 1000), cuts=st.lists(st.integers(1, 30_000), max_size=12))
def test_the_sizes_of_blocks_make_no_difference(seed: int, cuts: list[int]) -> None:
    rng = np.random.default_rng(seed)
    parts = [part for _ in range(2) for part in (quiet(0.5, rng, 0.003), spoken(rng.uniform(0.1, 1), rng))]
    samples = np.concatenate(parts)[: int(rng.integers(RATE_HZ, 2 * RATE_HZ))]
    finder = SpeechFinder()
    flags: list[bool] = []
    for block in np.split(samples, np.cumsum(cuts)):
        flags += finder.push(block)
    assert flags + finder.finish() == found(samples)


def test_every_hop_gets_one_answer() -> None:
    for count in (0, 1, HOP_SAMPLES - 1, HOP_SAMPLES, 5 * HOP_SAMPLES + 7):
        assert len(found(np.zeros(count, np.float32))) == -(-count // HOP_SAMPLES)


def test_speech_is_found_at_any_level_over_noise_as_far_below() -> None:
    rng = np.random.default_rng(1)
    for level in (0.5, 0.05, 0.01):
        for noise in (0.0, level / 100, level / 10):
            sounds = [quiet(1, rng, noise), spoken(1.5, rng, level), quiet(0.6, rng, noise), spoken(0.5, rng, level)]
            samples = np.concatenate([*sounds, quiet(1, rng, noise)])
            samples = samples + rng.normal(0, noise, len(samples)).astype(np.float32)
            stretches = runs(found(samples))
            assert np.allclose(stretches, [(1, 2.5), (3.1, 3.6)], atol=0.1), (level, noise, stretches)


def test_a_sound_that_begins_and_ends_with_speech() -> None:
    rng = np.random.default_rng(2)
    assert np.allclose(runs(found(spoken(3, rng))), [(0, 3)], atol=0.1)


def test_silence_and_noise_of_any_level_are_no_speech() -> None:
    rng = np.random.default_rng(3)
    for noise in (0.0, 1e-4, 1e-2, 0.05):
        assert not any(found(quiet(20, rng, noise))), noise


def test_a_click_is_no_speech_and_an_offset_is_silence() -> None:
    samples = np.full(3 * RATE_HZ, 0.4, np.float32)
    samples[RATE_HZ : RATE_HZ + 200] += 0.3
    assert not any(found(samples))


def test_noise_that_grows_louder_is_speech_for_no_longer_than_the_floor_looks_back() -> None:
    rng = np.random.default_rng(4)
    flags = found(np.concatenate([quiet(10, rng, 1e-3), quiet(20, rng, 1e-2)]))
    assert not any(flags[: 9 * HOPS_PER_S])
    assert not any(flags[19 * HOPS_PER_S :])
