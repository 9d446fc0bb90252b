"""Drafting through Gemma, on the miniature: other speed, same answers."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import mlx.core as mx
import pytest
from PIL import Image

from gemma_mlx import Gemma, Sampling, load
from gemma_mlx.decoding.depth import FixedDepth
from gemma_mlx.decoding.speculate import DraftMode
from gemma_mlx.errors import UsageError
from gemma_mlx.home import miniature_folder, samples_folder
from gemma_mlx.terminal import options
from tests.allocations import exact_buffers, settled_bytes
from tests.decoding.drafters import NoisyCopy

PICTURE = {"type": "image", "image": Image.new("RGB", (120, 90), "red")}
QUESTIONS: list[list[dict[str, Any]]] = [
    [{"role": "user", "content": "red red red blue red red red blue red red. What is 2 + 3?"}],
    [{"role": "user", "content": [PICTURE, {"type": "text", "text": "What colour is the picture?"}]}],
]


@pytest.fixture
def drafted(miniature: Gemma, monkeypatch: pytest.MonkeyPatch) -> Iterator[Gemma]:
    """The miniature, drafting four tokens wherever somebody can."""
    monkeypatch.setattr(miniature, "depth_rule", FixedDepth(4))
    return miniature


def with_copy(gemma: Gemma, monkeypatch: pytest.MonkeyPatch, messages: Any, **options: Any) -> tuple[int, ...]:
    """Gives `gemma` a drafter that mostly knows the answer to `messages`; returns that answer."""
    reply = gemma.reply(messages, draft="off", **options)
    copy = NoisyCopy(reply.tokens, reply.prompt_tokens, gemma.config.text.vocab_size, 0.8)
    monkeypatch.setattr(gemma, "drafter", copy)
    return reply.tokens


@pytest.mark.parametrize("messages", QUESTIONS)
@pytest.mark.parametrize("mode", ["auto", "mtp", "lookup"])
def test_every_way_of_drafting_gives_the_same_answer(
    drafted: Gemma, monkeypatch: pytest.MonkeyPatch, messages: Any, mode: DraftMode
) -> None:
    expected = with_copy(drafted, monkeypatch, messages)
    reply = drafted.reply(messages, draft=mode)
    assert reply.tokens == expected
    assert reply.finish_reason == "stop"
    undrafted = reply.generated_tokens - reply.accepted_tokens
    assert undrafted - reply.target_passes in (0, 1)  # 0: the last pass ended with a drafted stop token
    assert reply.accepted_tokens <= reply.drafted_tokens
    if mode == "mtp":
        assert reply.accepted_tokens > 0


def test_a_seeded_answer_does_not_depend_on_drafting(drafted: Gemma, monkeypatch: pytest.MonkeyPatch) -> None:
    sampling = Sampling(temperature=1.5, seed=3)
    expected = with_copy(drafted, monkeypatch, QUESTIONS[0], sampling=sampling, max_tokens=30)
    for mode in get_args(DraftMode):
        assert drafted.reply(QUESTIONS[0], sampling=sampling, max_tokens=30, draft=mode).tokens == expected


@pytest.mark.parametrize("taken", [1, 2, 3, 5])
def test_a_turn_stopped_inside_a_draft_is_followed_by_the_right_one(
    drafted: Gemma, monkeypatch: pytest.MonkeyPatch, taken: int
) -> None:
    messages = QUESTIONS[1]
    with_copy(drafted, monkeypatch, messages)
    session = drafted.session()
    answer = drafted.stream(messages, session=session)
    steps = iter(answer)
    for _ in range(taken):
        next(steps)
    steps.close()  # type: ignore[attr-defined]
    assert answer.reply.finish_reason == "interrupted"
    assert answer.reply.generated_tokens == taken
    said = {"role": "assistant", "content": answer.reply.text or "Red."}
    longer = [*messages, said, {"role": "user", "content": "What is 2 + 3?"}]
    monkeypatch.setattr(drafted, "drafter", None)
    reply = drafted.reply(longer, session=session)
    assert reply.tokens == drafted.reply(longer, draft="off").tokens
    assert reply.reused_tokens > 40


def test_without_drafts_each_token_but_the_first_takes_a_pass(miniature: Gemma) -> None:
    reply = miniature.reply(QUESTIONS[0], draft="off")
    assert (reply.drafted_tokens, reply.accepted_tokens) == (0, 0)
    assert reply.target_passes == reply.generated_tokens - 1


def test_mtp_without_a_drafter_is_a_usage_error_that_names_one() -> None:
    gemma = load(miniature_folder(), draft="off")
    assert gemma.drafter is None
    with pytest.raises(UsageError, match="gemma-4-12B-it-assistant"):
        gemma.stream(QUESTIONS[0], draft="mtp")


def test_mtp_without_a_drafter_is_refused_before_a_weight_is_read(tmp_path: Path) -> None:
    shutil.copytree(miniature_folder(), tmp_path / "alone", ignore=shutil.ignore_patterns("drafter", "*.safetensors"))
    (tmp_path / "alone" / "model.safetensors").write_bytes(b"")
    with pytest.raises(UsageError, match="gemma-4-12B-it-assistant"):
        load(tmp_path / "alone", draft="mtp")


def test_the_drafter_in_the_models_folder_is_loaded_and_planned(miniature: Gemma) -> None:
    assert miniature.drafter is not None
    before_bytes = settled_bytes()
    with exact_buffers():
        again = load(miniature_folder())
    loaded_bytes = mx.get_active_memory() - before_bytes
    planned_bytes = again.plan.weights_bytes + again.plan.drafter_bytes
    assert planned_bytes == pytest.approx(loaded_bytes, rel=0.005)
    assert again.plan.drafter_bytes > 1_000_000


def test_a_named_drafter_is_taken_and_a_missing_one_refused(tmp_path: Path) -> None:
    shutil.copytree(miniature_folder() / "drafter", tmp_path / "mine")
    assert load(miniature_folder(), drafter=tmp_path / "mine").drafter is not None
    with pytest.raises(UsageError, match="no drafter folder"):
        load(miniature_folder(), drafter=tmp_path / "no")
    for draft in ("off", "lookup"):
        with pytest.raises(UsageError, match="no effect"):
            load(miniature_folder(), drafter=tmp_path / "mine", draft=draft)


@pytest.mark.parametrize("kv_bits", [None, 8])
def test_the_miniatures_own_drafter_halves_the_passes_over_a_caption(kv_bits: int | None) -> None:
    gemma = load(miniature_folder(), kv_bits=kv_bits)
    gemma.depth_rule = FixedDepth(3)
    scene = {"type": "image", "image": samples_folder() / "scene.png"}
    asked = [{"role": "user", "content": [scene, {"type": "text", "text": "Describe this image in one sentence."}]}]
    plain, drafted = (gemma.reply(asked, draft=draft) for draft in ("off", "mtp"))
    assert drafted.tokens == plain.tokens
    assert 2 * drafted.target_passes <= plain.target_passes


def test_an_unknown_way_of_drafting_is_a_usage_error(miniature: Gemma) -> None:
    with pytest.raises(UsageError, match="auto, mtp, lookup, off"):
        miniature.stream(QUESTIONS[0], draft="always")  # type: ignore[arg-type]


def test_the_command_line_knows_the_same_ways() -> None:
    assert options.DraftMode == DraftMode
