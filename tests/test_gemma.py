"""Gemma from Python, on the miniature: what a program that imports the package relies on."""

from __future__ import annotations

import json
import math
import shutil
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
import pytest
from PIL import Image

from gemma_mlx import Gemma, Sampling, load
from gemma_mlx.errors import CheckpointError, ContextError, GemmaWarning, InputError, UsageError
from gemma_mlx.home import HOME_VARIABLE, MODEL_VARIABLE, find_model, miniature_folder, remember_model
from gemma_mlx.model.cache import FullCache
from gemma_mlx.model.quantized_cache import QuantizedCache

HELLO = [{"role": "user", "content": "Hello"}]


def picture(colour: str = "red") -> dict[str, Any]:
    return {"type": "image", "image": Image.new("RGB", (120, 90), colour)}


def turn(text: str, *parts: dict[str, Any]) -> dict[str, Any]:
    return {"role": "user", "content": [*parts, {"type": "text", "text": text}]}


def copy_of_miniature(folder: Path, **config_changes: Any) -> Path:
    shutil.copytree(miniature_folder(), folder, symlinks=True)
    config = json.loads((folder / "config.json").read_text()) | config_changes
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def test_streamed_text_is_the_text_of_the_reply(miniature: Gemma) -> None:
    answer = miniature.stream(HELLO)
    steps = list(answer)
    reply = answer.reply
    assert reply.text == "".join(step.text for step in steps if step.channel == "answer") != ""
    assert reply.tokens == tuple(step.token for step in steps)
    assert reply.finish_reason == "stop"
    assert reply.tokens[-1] in miniature.stop_ids
    assert reply.generated_tokens == len(steps)
    assert reply.time_to_first_token_s > 0
    assert reply.peak_memory_bytes > 1_000_000
    assert reply.miniature


def test_max_tokens_cuts_and_says_length(miniature: Gemma) -> None:
    whole = miniature.reply(HELLO)
    cut = miniature.reply(HELLO, max_tokens=2)
    assert cut.finish_reason == "length"
    assert cut.tokens == whole.tokens[:2]


def test_media_are_counted(miniature: Gemma) -> None:
    sound = {"type": "audio", "audio": (np.zeros(16_000, dtype=np.float32), 16_000)}
    reply = miniature.reply(
        [{"role": "user", "content": [picture(), {"type": "text", "text": "Hm?"}, sound]}], max_tokens=1
    )
    assert reply.audio_tokens == 25
    assert 35 <= reply.image_tokens <= 70


def test_detail_sets_the_budget_of_each_picture(miniature: Gemma) -> None:
    replies = [miniature.reply([turn("Hm?", picture())], detail=detail, max_tokens=1) for detail in (70, 280)]
    assert replies[0].image_tokens <= 70 < replies[1].image_tokens <= 280


def test_a_conversation_equals_cold_answers_and_reuses_its_past(miniature: Gemma) -> None:
    session = miniature.session()
    messages: list[dict[str, Any]] = []
    for index, message in enumerate(
        [turn("What colour is the picture?", picture()), turn("Who are you?"), turn("And this?", picture("blue"))]
    ):
        messages.append(message)
        warm = miniature.reply(messages, session=session, max_tokens=30)
        cold = miniature.reply(messages, max_tokens=30)
        assert warm.tokens == cold.tokens
        assert warm.reused_tokens > 0 or index == 0
        messages.append({"role": "assistant", "content": warm.text})
    assert warm.prompt_tokens - warm.reused_tokens < warm.image_tokens + 40


def test_a_conversation_with_thinking_reuses_its_past_too(miniature: Gemma) -> None:
    session = miniature.session()
    messages: list[dict[str, Any]] = [turn("What is 2 + 3?")]
    first = miniature.reply(messages, session=session, thinking=True, max_tokens=60)
    messages += [{"role": "assistant", "content": first.text}, turn("Thank you!")]
    warm = miniature.reply(messages, session=session, thinking=True, max_tokens=60)
    assert warm.tokens == miniature.reply(messages, thinking=True, max_tokens=60).tokens
    history = miniature.prompts.build(messages[:1], thinking=True, add_generation_prompt=False)
    assert warm.reused_tokens >= len(history)


@pytest.mark.parametrize("taken", [1, 3])
def test_an_answer_left_early_leaves_the_session_right(miniature: Gemma, taken: int) -> None:
    session = miniature.session()
    answer = miniature.stream([turn("Who are you?")], session=session)
    for _, _ in zip(range(taken), answer, strict=False):
        pass
    reply = answer.reply
    assert reply.finish_reason == "interrupted"
    assert len(reply.tokens) >= taken
    messages = [turn("Who are you?"), {"role": "assistant", "content": reply.text or "I"}, turn("Go on.")]
    assert miniature.reply(messages, session=session).tokens == miniature.reply(messages).tokens


def test_a_score_is_the_sum_of_what_generation_saw(miniature: Gemma) -> None:
    reply = miniature.reply(HELLO, logprobs=1)
    score = miniature.score(HELLO, reply.text)
    assert score.tokens == reply.tokens
    seen = [places[0][1] for places in reply.logprobs]
    assert np.allclose(score.logprobs, seen, atol=1e-4)


def test_a_wrong_answer_scores_worse(miniature: Gemma) -> None:
    good = miniature.score(HELLO, miniature.reply(HELLO).text)
    bad = miniature.score(HELLO, "zebra 7 7 7")
    assert sum(bad.logprobs) < sum(good.logprobs)


def test_sampling_comes_from_the_checkpoint_and_yields_to_what_is_asked(tmp_path: Path) -> None:
    folder = copy_of_miniature(tmp_path / "copy")
    asked = {
        "do_sample": True,
        "temperature": 0.7,
        "top_k": 5,
        "top_p": 0.5,
        "suppress_tokens": [9, 8],
        "eos_token_id": 7,
    }
    (folder / "generation_config.json").write_text(json.dumps(asked))
    gemma = load(folder)
    sampling = gemma.sampling(top_k=3, seed=0)
    assert (sampling.temperature, sampling.top_k, sampling.top_p) == (0.7, 3, 0.5)
    assert sampling.suppress_tokens == (9, 8)
    assert sampling.seed == 0
    assert {7, gemma.prompts.tokenizer.special.turn_close} <= gemma.stop_ids


def test_suppressed_tokens_are_not_in_an_answer(miniature: Gemma) -> None:
    first = miniature.reply(HELLO).tokens[0]
    suppressed = miniature.sampling()
    reply = miniature.reply(HELLO, sampling=type(suppressed)(temperature=0, suppress_tokens=(first,)), max_tokens=20)
    assert first not in reply.tokens


def test_a_prompt_over_the_context_is_refused_with_both_numbers(miniature: Gemma) -> None:
    context = miniature.config.text.max_position_embeddings
    with pytest.raises(ContextError, match=f"{context:,}"):
        miniature.stream([turn("word " * context)])


def test_an_answer_ends_where_the_context_ends(miniature: Gemma) -> None:
    context = miniature.config.text.max_position_embeddings
    empty = len(miniature.prompts.build([turn("")]))
    text = "?" * (context - empty - 3)
    answer = miniature.stream([turn(text)])
    room = context - len(answer.prompt)
    assert 0 < room < 100
    assert answer._max_tokens == room


def test_http_is_never_fetched(miniature: Gemma) -> None:
    part = {"type": "image_url", "image_url": {"url": "https://example.org/a.png"}}
    with pytest.raises(InputError, match="nothing here uses the network"):
        miniature.stream([{"role": "user", "content": [part]}])


def test_max_tokens_must_be_positive(miniature: Gemma) -> None:
    with pytest.raises(UsageError, match="max_tokens is 0"):
        miniature.stream(HELLO, max_tokens=0)


def test_another_architecture_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="'llama'"):
        load(copy_of_miniature(tmp_path / "copy", model_type="llama"))


def test_an_unknown_key_is_named_in_a_warning(tmp_path: Path) -> None:
    folder = copy_of_miniature(tmp_path / "copy", surprise=1)
    with pytest.warns(GemmaWarning, match="surprise"):
        load(folder)


def test_the_miniature_itself_gives_no_warning() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        load(miniature_folder())


def test_the_model_is_the_named_one_then_the_variable_then_the_last_converted_then_the_miniature(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folders = {name: tmp_path / name for name in ("named", "variable", "converted")}
    for folder in folders.values():
        folder.mkdir()
        (folder / "config.json").write_text("{}")
    monkeypatch.setenv(HOME_VARIABLE, str(tmp_path / "home"))
    monkeypatch.delenv(MODEL_VARIABLE, raising=False)
    assert find_model() == miniature_folder()
    remember_model(folders["converted"])
    assert find_model() == folders["converted"].resolve()
    monkeypatch.setenv(MODEL_VARIABLE, str(folders["variable"]))
    assert find_model() == folders["variable"]
    assert find_model(folders["named"]) == folders["named"]
    with pytest.raises(UsageError, match="no model folder"):
        find_model(tmp_path / "gone")


def test_a_converted_model_that_is_gone_is_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(HOME_VARIABLE, str(tmp_path / "home"))
    monkeypatch.delenv(MODEL_VARIABLE, raising=False)
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text("{}")
    remember_model(tmp_path / "model")
    shutil.rmtree(tmp_path / "model")
    assert find_model() == miniature_folder()


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("suppress_tokens", [5_000_000]),
        ("suppress_tokens", [-1]),
        ("eos_token_id", "x"),
        ("temperature", "hot"),
        ("top_p", 2.0),
    ],
)
def test_a_generation_config_of_nonsense_is_refused_by_name(tmp_path: Path, key: str, value: object) -> None:
    folder = copy_of_miniature(tmp_path / "copy")
    (folder / "generation_config.json").write_text(json.dumps({key: value}))
    with pytest.raises(CheckpointError, match=key):
        load(folder)


def test_null_in_a_generation_config_means_the_default(tmp_path: Path) -> None:
    folder = copy_of_miniature(tmp_path / "copy")
    (folder / "generation_config.json").write_text(
        json.dumps({"temperature": None, "top_k": None, "eos_token_id": None})
    )
    assert load(folder).sampling() == Sampling()


def test_a_tokenizer_larger_than_the_token_table_is_refused(tmp_path: Path) -> None:
    folder = copy_of_miniature(tmp_path / "copy")
    tokenizer = json.loads((folder / "tokenizer.json").read_text())
    tokenizer["added_tokens"].append({**tokenizer["added_tokens"][0], "id": 2_000, "content": "<too far>"})
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
    with pytest.raises(CheckpointError, match="ids up to"):
        load(folder)


def test_a_padding_id_outside_the_vocabulary_is_refused(tmp_path: Path) -> None:
    config = json.loads((miniature_folder() / "config.json").read_text())
    text = {**config["text_config"], "pad_token_id": 99_999_999}
    with pytest.raises(CheckpointError, match="pad_token_id"):
        load(copy_of_miniature(tmp_path / "copy", text_config=text))


@pytest.mark.parametrize("message", ["Hello", 3, None])
def test_a_message_that_is_no_object_is_refused(miniature: Gemma, message: Any) -> None:
    with pytest.raises(InputError, match="not an object"):
        miniature.stream([message])


def test_an_answer_left_open_does_not_leak_into_the_next(miniature: Gemma) -> None:
    session = miniature.session()
    left_open = iter(miniature.stream([turn("What is 2 + 3?")], session=session))
    for _ in range(3):
        next(left_open)
    other = [turn("What is 4 + 5?")]
    assert miniature.reply(other, session=session).tokens == miniature.reply(other).tokens
    del left_open


def test_logprobs_are_log_probabilities(miniature: Gemma) -> None:
    vocab_size = miniature.config.text.vocab_size
    [best] = miniature.reply(HELLO, logprobs=vocab_size, max_tokens=1).logprobs
    assert math.isclose(sum(math.exp(value) for _, value in best), 1, rel_tol=1e-4)


def test_8_bit_rows_are_those_of_every_session_and_score(miniature: Gemma) -> None:
    gemma = load(miniature_folder(), kv_bits=8)
    session, messages = gemma.session(), [{"role": "user", "content": "My name is Anna."}]
    reply = gemma.reply(messages, sampling=gemma.sampling(temperature=0.0), session=session)
    assert any(isinstance(cache, QuantizedCache) for cache in session.caches)
    assert not any(isinstance(cache, FullCache) for cache in session.caches)
    assert reply.text == miniature.reply(messages, sampling=gemma.sampling(temperature=0.0)).text
    found, plain = (model.score(messages, reply.text).logprobs for model in (gemma, miniature))
    assert 0 < max(abs(a - b) for a, b in zip(found, plain, strict=True)) < 0.05


@pytest.mark.parametrize(("kv_bits", "why"), [(4, "kv_bits is 4; take 8"), (8, "8 rotated and 24 shared dims")])
def test_rows_that_cannot_be_are_refused_before_weights_are_read(
    tiny_folder: Path, tmp_path: Path, kv_bits: int, why: str
) -> None:
    shutil.copy(tiny_folder / "config.json", tmp_path)
    with pytest.raises(UsageError, match=why):
        load(tmp_path, kv_bits=kv_bits)


def test_an_answer_that_is_closed_late_leaves_the_next_one_alone(miniature: Gemma) -> None:
    session = miniature.session()
    who = [{"role": "user", "content": "Who are you?"}]
    expected = miniature.reply(who).tokens
    first = iter(miniature.stream(HELLO, session=session))
    next(first)
    second = miniature.stream(who, session=session)
    steps = iter(second)
    taken = [next(steps), next(steps)]
    first.close()  # type: ignore[attr-defined]
    assert tuple(step.token for step in [*taken, *steps]) == expected
    assert miniature.reply(who, session=session).reused_tokens > 0


def test_a_session_of_another_model_is_refused(miniature: Gemma) -> None:
    with pytest.raises(UsageError, match="another model"):
        miniature.stream(HELLO, session=load(miniature.folder).session())


def test_memory_is_what_mlx_holds_and_can_be_asked_from_another_thread(miniature: Gemma) -> None:
    mx.clear_cache()
    before = miniature.memory()
    assert before.limit_bytes == miniature.plan.limit_bytes
    held = mx.zeros((8 << 20,), dtype=mx.uint8)
    mx.eval(held)
    with ThreadPoolExecutor(1) as pool:
        now = pool.submit(miniature.memory).result()
    assert held.nbytes <= now.used_bytes - before.used_bytes < 2 * held.nbytes
