from __future__ import annotations

from benchmarks.screen import answered, prompt_after_s


def test_what_the_screen_takes_is_measured_while_somebody_types() -> None:
    point = answered(80, 24, seconds=1, tokens_per_s=60)
    assert point["tokens"] == 60
    assert 0.9 < point["seconds"] < 5
    assert 0 < point["screen_share"] < 1
    assert point["keys"] > 2
    assert 0 < point["key_seen_median_s"] <= point["key_seen_95_s"]
    assert 1 < point["drawings_per_s"] < 12


def test_the_prompt_is_there_soon() -> None:
    assert prompt_after_s() < 10  # other tests run beside it: the benchmark says how soon
