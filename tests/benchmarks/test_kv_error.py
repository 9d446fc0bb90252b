"""What 8-bit rows cost, within bounds that a wrong part, group or mask would break."""

from __future__ import annotations

from dataclasses import replace

from benchmarks.kv_error import answers_error, layer_error, sample_conversations
from gemma_mlx import Gemma


def test_answers_about_pictures_and_sounds_stay_the_same(miniature: Gemma) -> None:
    error = answers_error(miniature, sample_conversations(each=2))
    assert error.answers == error.same_answers == 6
    assert error.positions > 30
    assert error.top1_agreement == 1
    assert error.mean_kl < 2e-5
    assert error.mean_logprob_difference < 0.02
    assert 0 < error.largest_logprob_difference < 0.3


def test_a_layer_as_wide_as_in_the_12b_errs_by_half_a_percent(miniature: Gemma) -> None:
    """Its inputs and outputs are narrower, which the rows do not see."""
    wide = replace(miniature.config.text, global_head_dim=512, num_attention_heads=16)
    error = layer_error(wide, 2048, score_spread=4.0)
    assert 0.005 < error.rows < 0.0056
    assert 0.005 < error.scores < 0.0056
    assert 0.001 < error.output < 0.02
    assert error.largest_score_difference < 0.15
