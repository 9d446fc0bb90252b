from __future__ import annotations

import pytest

from convert.calibration import Exchange, default_exchanges, samples_of
from gemma_mlx.errors import InputError
from gemma_mlx.home import miniature_folder


@pytest.mark.parametrize("miniature", [True, False])
def test_default_prompts_have_text_pictures_and_sound_and_answers_to_judge(miniature: bool) -> None:
    samples = samples_of(miniature_folder(), default_exchanges(miniature=miniature))
    kinds = {span.kind for sample in samples for span in sample.prompt.spans}
    assert kinds == {"image", "audio"}
    assert any(not sample.prompt.spans for sample in samples)
    assert len({sample.digest for sample in samples}) == len(samples)
    for sample in samples:
        assert sample.judged.stop - sample.judged.start == len(sample.answer_ids) > 1
        assert sample.judged.start == len(sample.prompt) - 1


def test_the_answer_ends_its_turn_and_a_prompt_that_cannot_be_read_is_named() -> None:
    exchange = Exchange([{"role": "user", "content": "Hello"}], "Hello!", "line 3")
    longer = Exchange(exchange.messages, "Hello! Hello!", "line 3")
    first, second = samples_of(miniature_folder(), [exchange, longer])
    assert first.answer_ids[-1] == second.answer_ids[-1]
    assert first.digest != second.digest
    with pytest.raises(InputError, match=r"^line 4: "):
        samples_of(miniature_folder(), [Exchange([{"role": "nobody", "content": "Hello"}], "Hello!", "line 4")])
