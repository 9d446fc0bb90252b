from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gemma_mlx.inputs.waveform import SAMPLE_RATE_HZ
from gemma_mlx.tasks.windows import (
    MARGIN_S,
    OVERLAP_S,
    Aim,
    Samples,
    Window,
    best_aim,
    quietest,
    recording_windows,
    speech_windows,
)
from tests.inputs.test_pauses import quiet, spoken

AIM = Aim(longest_s=4.0, pause_s=0.5)


def cut(samples: Samples, aim: Aim = AIM, block: int = 1 << 14) -> list[Window]:
    blocks = [samples[start : start + block] for start in range(0, len(samples), block)]
    return list(speech_windows(blocks, aim))


def talk(rng: np.random.Generator, *seconds: float) -> Samples:
    """Silence and speech in turn, silence first."""
    makers = (lambda length: quiet(length, rng, 1e-3), lambda length: spoken(length, rng))
    return np.concatenate([makers[index % 2](length) for index, length in enumerate(seconds)])


def times(windows: list[Window]) -> list[tuple[float, float]]:
    return [(window.start_s, window.end_s) for window in windows]


def test_a_pause_ends_a_window_and_a_short_one_does_not() -> None:
    windows = cut(talk(np.random.default_rng(0), 1, 1, 0.3, 1, 2, 1, 1))
    assert np.allclose(times(windows), [(1, 3.3), (5.3, 6.3)], atol=0.1)
    assert windows[0].spoken_s == pytest.approx(2.0, abs=0.15)
    assert not any(window.follows_cut or window.ends_in_cut for window in windows)


def test_what_is_sent_is_the_speech_and_its_margins() -> None:
    samples = talk(np.random.default_rng(1), 1, 1, 2, 1, 1)
    for window in cut(samples):
        first = round((window.start_s - MARGIN_S) * SAMPLE_RATE_HZ)
        assert np.array_equal(window.samples, samples[first : first + len(window.samples)])
        assert len(window.samples) / SAMPLE_RATE_HZ == pytest.approx(window.end_s - window.start_s + 2 * MARGIN_S)


def test_silence_is_never_sent() -> None:
    assert cut(quiet(60, np.random.default_rng(2), 1e-3)) == []
    assert cut(np.zeros(0, np.float32)) == []


def test_too_long_a_window_ends_at_its_longest_late_pause() -> None:
    windows = cut(talk(np.random.default_rng(3), 1, 1, 0.3, 1.2, 0.4, 0.6, 0.2, 1.5, 1))
    assert np.allclose(times(windows), [(1, 3.5), (3.9, 6.2)], atol=0.1)
    assert not windows[1].follows_cut


def test_endless_speech_is_cut_at_the_quietest_place_and_both_sides_hear_more() -> None:
    rng = np.random.default_rng(4)
    speech = np.concatenate([spoken(2.4, rng), 0.2 * spoken(0.12, rng), spoken(2.5, rng)])
    samples = np.concatenate([quiet(1, rng, 1e-4), speech, quiet(1, rng, 1e-4)])
    first, second = cut(samples)
    assert first.end_s == second.start_s == pytest.approx(3.46, abs=0.1)
    assert first.ends_in_cut
    assert second.follows_cut
    heard_twice_s = sum(len(window.samples) for window in (first, second)) / SAMPLE_RATE_HZ - (5.02 + 2 * MARGIN_S)
    assert heard_twice_s == pytest.approx(2 * OVERLAP_S, abs=0.1)


@settings(max_examples=15, deadline=None)
@given(
    seed=st.integers(0, 1000),
    lengths=st.lists(st.floats(0.1, 6), min_size=1, max_size=6),
    block=st.integers(500, 60_000),
)
def test_windows_are_the_same_for_any_blocks_and_hold_all_speech(seed: int, lengths: list[float], block: int) -> None:
    rng = np.random.default_rng(seed)
    samples = talk(rng, *[length for speech in lengths for length in (float(rng.uniform(0.1, 2)), speech)], 1)
    windows = cut(samples, block=block)
    assert times(windows) == times(cut(samples, block=len(samples)))
    ends = [time_s for window in windows for time_s in (window.start_s, window.end_s)]
    assert ends == sorted(ends)
    assert all(window.end_s - window.start_s <= AIM.longest_s + 0.01 for window in windows)
    covered = np.zeros(len(samples), bool)
    for window in windows:
        first, last = (round(time_s * SAMPLE_RATE_HZ) for time_s in (window.start_s - 0.2, window.end_s + 0.2))
        covered[max(0, first) : last] = True
    assert not (np.abs(samples) > 0.05)[~covered].any()


def test_an_hour_of_speech_is_held_a_window_at_a_time() -> None:
    from gemma_mlx.tasks import windows as module

    rng = np.random.default_rng(5)
    block = talk(rng, 0.4, 2.0, 0.3, 1.0)
    cutter = module._Cutter(AIM)
    finder = module.SpeechFinder()
    most = 0
    for _ in range(40):
        cutter.hear(block)
        list(cutter.take(finder.push(block)))
        most = max(most, len(cutter._held))
    assert most < 2 * len(block) + (AIM.longest_s + 3) * SAMPLE_RATE_HZ


def test_windows_come_as_soon_as_they_are_known() -> None:
    rng = np.random.default_rng(6)
    given_s = 0.0

    def blocks() -> Iterator[Samples]:
        nonlocal given_s
        for block in np.split(talk(rng, 1, 1, 8), 100):
            given_s += len(block) / SAMPLE_RATE_HZ
            yield block

    next(speech_windows(blocks(), AIM))
    assert given_s < 4


def test_a_recording_as_short_as_a_window_is_sent_as_it_is() -> None:
    short = talk(np.random.default_rng(8), 0.5, 1, 1)
    [window] = recording_windows(np.split(short, 7 * [0] + [9000]), AIM)
    assert np.array_equal(window.samples, short)
    assert (window.start_s, window.end_s) == pytest.approx((0.5, 1.5), abs=0.1)
    assert list(recording_windows([quiet(2, np.random.default_rng(9), 1e-3)], AIM)) == []
    for samples in (talk(np.random.default_rng(9), 0.2, 0.5, 0.8, 0.5), talk(np.random.default_rng(9), 2, 1, 2)):
        found = [window.samples for window in recording_windows(np.split(samples, 5 * [0] + [8000]), AIM)]
        assert all(map(np.array_equal, found, [window.samples for window in cut(samples)]))
        assert sum(map(len, found)) < len(samples)


def test_the_aim_keeps_within_the_positions_that_are_heard_best() -> None:
    released = best_aim(miniature=False, prompt_tokens=90, subtitles=False)
    assert 90 + 25 * (released.longest_s + 2 * OVERLAP_S) == pytest.approx(450)
    assert best_aim(miniature=False, prompt_tokens=90, subtitles=True).longest_s == 7
    assert best_aim(miniature=False, prompt_tokens=440, subtitles=False).longest_s == 2
    assert best_aim(miniature=True, prompt_tokens=90, subtitles=False).longest_s == 4


def test_the_quietest_place_lies_in_the_middle_half() -> None:
    rng = np.random.default_rng(7)
    samples = np.concatenate([np.zeros(4800, np.float32), spoken(1, rng), np.zeros(3200, np.float32), spoken(1, rng)])
    assert quietest(samples) * 160 == pytest.approx(4800 + 16_000 + 1600, abs=1600)
