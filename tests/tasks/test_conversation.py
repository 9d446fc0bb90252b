from __future__ import annotations

from collections.abc import Generator
from pathlib import Path
from typing import cast

import pytest

from gemma_mlx.answer import Answer, Reply, Step
from gemma_mlx.errors import ContextError
from gemma_mlx.gemma import Gemma
from gemma_mlx.tasks.conversation import Conversation


def finish(answer: Answer, steps: int | None = None) -> Reply:
    """The reply after all or `steps` steps."""
    steps_made = cast("Generator[Step]", iter(answer))
    for count, _ in enumerate(steps_made, start=1):
        if count == steps:
            break
    steps_made.close()
    return answer.reply


def cold(gemma: Gemma, conversation: Conversation, question: str) -> tuple[int, ...]:
    """What the model says to `question` when nothing is cached."""
    return gemma.reply([*conversation.messages, {"role": "user", "content": question}], max_tokens=12).tokens


def test_a_turn_re_uses_the_turns_before_and_equals_a_cold_run(miniature: Gemma, picture: Path) -> None:
    conversation = Conversation(miniature, max_tokens=12, system="Be brief.")
    conversation.attach("image", picture)
    conversation.keep(finish(conversation.ask("What colour is it?")))
    expected = cold(miniature, conversation, "What shape is it?")
    reply = finish(conversation.ask("What shape is it?"))
    assert reply.tokens == expected
    assert 63 < reply.reused_tokens < reply.prompt_tokens


@pytest.mark.parametrize("stopped_after", [1, 2, 5])
def test_a_stopped_answer_is_kept_and_the_next_turn_equals_a_cold_run(miniature: Gemma, stopped_after: int) -> None:
    conversation = Conversation(miniature, max_tokens=12)
    reply = finish(conversation.ask("Tell me a story."), stopped_after)
    assert reply.finish_reason == "interrupted"
    kept = conversation.keep(reply)
    assert kept == bool(reply.text.strip())
    assert len(conversation.messages) == (2 if kept else 0)
    expected = cold(miniature, conversation, "Hello")
    assert finish(conversation.ask("Hello")).tokens == expected


def test_an_exception_in_the_middle_of_an_answer_leaves_the_session_exact(miniature: Gemma) -> None:
    conversation = Conversation(miniature, max_tokens=12)
    answer = conversation.ask("Tell me a story.")
    steps = cast("Generator[Step]", iter(answer))
    for _ in range(4):
        next(steps)
    with pytest.raises(KeyboardInterrupt):
        steps.throw(KeyboardInterrupt())
    conversation.keep(answer.reply)
    expected = cold(miniature, conversation, "Hello")
    assert finish(conversation.ask("Hello")).tokens == expected


def test_a_prompt_stopped_while_it_is_read_changes_nothing(miniature: Gemma, picture: Path) -> None:
    conversation = Conversation(miniature, max_tokens=12)
    conversation.keep(finish(conversation.ask("Hello")))
    conversation.attach("image", picture)
    before = conversation.messages

    def stop(done: int, of: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        finish(conversation.ask("What is this? " * 100, stop))
    assert conversation.messages == before
    assert len(conversation.waiting) == 1
    conversation.waiting.clear()
    expected = cold(miniature, conversation, "How are you?")
    assert finish(conversation.ask("How are you?")).tokens == expected


def test_a_message_too_long_changes_nothing(miniature: Gemma) -> None:
    conversation = Conversation(miniature, max_tokens=12)
    conversation.keep(finish(conversation.ask("Hello")))
    before = conversation.messages
    with pytest.raises(ContextError):
        conversation.ask("one two three " * 9000)
    assert conversation.messages == before
    expected = cold(miniature, conversation, "Hello")
    assert finish(conversation.ask("Hello")).tokens == expected


def test_thoughts_do_not_enter_the_history(miniature: Gemma) -> None:
    conversation = Conversation(miniature, thinking=True, max_tokens=60)
    reply = finish(conversation.ask("What is 2 + 3?"))
    assert reply.thought
    assert conversation.keep(reply)
    conversation.ask("Thank you!")
    history = miniature.prompts.build(conversation.messages, thinking=True)
    assert reply.thought not in miniature.prompts.tokenizer.decode(history.ids)


def test_media_go_around_the_text_and_only_once(miniature: Gemma, picture: Path, tone: Path) -> None:
    conversation = Conversation(miniature, max_tokens=12)
    conversation.attach("audio", tone)
    conversation.attach("image", picture)
    conversation.keep(finish(conversation.ask("Hello")))
    parts = conversation.messages[0]["content"]
    assert [part["type"] for part in parts] == ["image", "text", "audio"]
    assert conversation.waiting == []


def test_reset_keeps_the_system_message(miniature: Gemma) -> None:
    conversation = Conversation(miniature, system="Be brief.", max_tokens=12)
    conversation.keep(finish(conversation.ask("Hello")))
    conversation.reset()
    assert conversation.messages == [{"role": "system", "content": "Be brief."}]
    assert finish(conversation.ask("Hello")).reused_tokens == 0
