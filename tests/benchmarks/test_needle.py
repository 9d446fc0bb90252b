from __future__ import annotations

import random

import pytest

from benchmarks.needle import ANSWER_TOKENS, haystack, search, shortest_context
from gemma_mlx import Gemma


@pytest.mark.parametrize("tokens", [120, 500, 3001])
def test_a_haystack_has_exactly_the_tokens_asked_for(miniature: Gemma, tokens: int) -> None:
    messages = haystack(miniature.prompts, tokens, 0.5, "123456", random.Random(1))
    assert len(miniature.prompts.build(messages)) == tokens


@pytest.mark.parametrize("depth", [0, 0.1, 0.5, 0.9, 1])
def test_the_needle_lies_whole_at_its_depth(miniature: Gemma, depth: float) -> None:
    (message,) = haystack(miniature.prompts, 2000, depth, "123456", random.Random(1))
    text = message["content"]
    place = text.index("The number that opens the green gate is 123456.") / len(text)
    assert abs(place - depth) < 0.05
    assert text.count("123456") == 1
    assert text.endswith("nothing else.")


def test_a_cell_says_how_it_went(miniature: Gemma) -> None:
    shortest = shortest_context(miniature.prompts)
    cells = list(search(miniature, [shortest, 200], [0.2, 0.8], seed=3))
    assert [(cell.context_tokens, cell.depth) for cell in cells] == [
        (c, d) for c in (shortest, 200) for d in (0.2, 0.8)
    ]
    for cell in cells:
        assert cell.prompt_tokens == cell.context_tokens - ANSWER_TOKENS
        assert cell.error is None
        assert cell.answer
