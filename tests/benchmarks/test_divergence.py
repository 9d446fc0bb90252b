from __future__ import annotations

import numpy as np
import pytest

from benchmarks.divergence import Divergence, kl_divergence, log_softmax


def test_kl_of_known_distributions() -> None:
    wanted, found = np.array([[0.5, 0.25, 0.25]]), np.array([[0.25, 0.25, 0.5]])
    # 0.5 ln(0.5 / 0.25) + 0 + 0.25 ln(0.25 / 0.5) = 0.25 ln 2
    assert kl_divergence(np.log(wanted), np.log(found)) == pytest.approx([0.25 * np.log(2)], abs=1e-12)
    skewed = np.array([[0.8, 0.1, 0.1]])
    assert kl_divergence(np.log(skewed), np.log(wanted))[0] != kl_divergence(np.log(wanted), np.log(skewed))[0]


def test_logits_need_not_be_normed_and_may_be_large() -> None:
    logits = np.array([[1e4, 1e4 + np.log(3), -1e4]], np.float64)
    assert np.exp(log_softmax(logits)) == pytest.approx(np.array([[0.25, 0.75, 0.0]]), abs=1e-9)


def test_figures_of_known_positions() -> None:
    even, likely = np.log([0.25] * 4), np.log([0.7, 0.1, 0.1, 0.1])
    wanted = np.array([likely, likely, likely])
    found = np.array([likely, even, np.roll(likely, 1)])
    divergence = Divergence()
    assert not divergence.add(wanted, found, [0, 0, 0])
    assert divergence.add(wanted[:1], found[:1], [0])
    divergence.answers += [False, True]
    to_even = 0.7 * np.log(0.7 / 0.25) + 0.3 * np.log(0.1 / 0.25)
    to_rolled = 0.6 * np.log(7)
    figures = divergence.figures
    assert (figures["positions"], figures["answers"], figures["answers_again"]) == (4, 2, 1)
    assert figures["kl_mean"] == pytest.approx((to_even + to_rolled) / 4, abs=1e-9)
    assert figures["kl_median"] == pytest.approx(to_even / 2, abs=1e-9)
    assert figures["kl_max"] == pytest.approx(to_rolled, abs=1e-9)
    assert figures["kl_median"] < figures["kl_p99"] < figures["kl_max"]
    assert figures["top1_agreement"] == 0.75
    assert figures["perplexity"] == pytest.approx((0.7 * 0.25 * 0.1 * 0.7) ** -0.25)


def test_putting_kinds_together_keeps_every_position() -> None:
    one, other = Divergence([1.0], [True], [-1.0], [True]), Divergence([3.0, 2.0], [False, True], [-2.0, 0.0], [False])
    one.extend(other)
    figures = one.figures
    assert (figures["positions"], figures["kl_mean"], figures["answers"], figures["answers_again"]) == (3, 2.0, 2, 1)
    assert figures["perplexity"] == pytest.approx(np.e)
