from __future__ import annotations

from collections.abc import Generator
from dataclasses import replace
from pathlib import Path
from typing import cast

import numpy as np
import pytest
from PIL import Image

from gemma_mlx.answer import Answer, Reply, Step
from gemma_mlx.decoding.sampling import Sampling
from gemma_mlx.decoding.session import Session
from gemma_mlx.errors import ContextError, UsageError
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


def cold(gemma: Gemma, conversation: Conversation, question: str, max_tokens: int = 12) -> tuple[int, ...]:
    """What the model says to `question` when nothing is cached."""
    return gemma.reply([*conversation.messages, {"role": "user", "content": question}], max_tokens=max_tokens).tokens


def test_a_turn_re_uses_the_turns_before_and_equals_a_cold_run(miniature: Gemma, picture: Path) -> None:
    conversation = Conversation(miniature, max_tokens=12, system="Be brief.")
    conversation.attach("image", picture)
    conversation.keep(finish(conversation.ask("What colour is it?")))
    expected = cold(miniature, conversation, "What shape is it?")
    reply = finish(conversation.ask("What shape is it?"))
    assert reply.tokens == expected
    assert 63 < reply.reused_tokens < reply.prompt_tokens


def test_the_context_used_is_that_of_the_turns_there_are(miniature: Gemma) -> None:
    conversation = Conversation(miniature, max_tokens=12)
    assert conversation.used_tokens == 0
    replies = []
    for question in ("What is 2 + 3?", "What is 4 + 4?"):
        replies.append(finish(conversation.ask(question)))
        conversation.keep(replies[-1])
    first, second = (reply.prompt_tokens + reply.generated_tokens for reply in replies)
    assert conversation.used_tokens == second
    conversation.undo()
    assert conversation.used_tokens == first


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


FILLER = "I have one red circle and two blue squares and three green stars on my white table today. " * 6
"""Far more tokens than a sliding layer can take back; two of it fill the window."""


FEW, WINDOW = 5, 256


def say(conversation: Conversation, text: str) -> Reply:
    reply = finish(conversation.ask(text))
    assert conversation.keep(reply)
    return reply


def tokens_before(gemma: Gemma, conversation: Conversation, answer: Answer) -> int:
    """With how many tokens of what was said before the prompt of `answer` begins."""
    before = gemma.prompts.build(conversation.messages, add_generation_prompt=False).ids
    both = zip(before, answer.prompt.ids, strict=False)
    return next((index for index, (a, b) in enumerate(both) if a != b), len(before))


def spoken(gemma: Gemma, snapshots: int | None = None) -> Conversation:
    session = None if snapshots is None else Session(gemma.model, snapshots=snapshots)
    return Conversation(gemma, max_tokens=FEW, session=session)


def test_after_an_undo_another_question_re_uses_all_before_the_turn(miniature: Gemma, picture: Path) -> None:
    """Also time and again, and with a picture: an undo goes back to a snapshot, and the next message takes it again."""
    conversation = spoken(miniature)
    say(conversation, FILLER + "Hello")
    say(conversation, FILLER + "How are you?")
    for question, pictures in (("Who are you?", 0), ("What is this?", 1)):
        for _ in range(pictures):
            conversation.attach("image", picture)
        say(conversation, FILLER + question)
        undone = conversation.undo()
        assert undone is not None
        assert (undone.text, len(undone.attached)) == (FILLER + question, pictures)
        answer = conversation.ask("And now?")
        expected = cold(miniature, conversation, "And now?", FEW)
        reply = finish(answer)
        assert reply.reused_tokens == tokens_before(miniature, conversation, answer) > WINDOW
        assert reply.tokens == expected


def test_several_undos_go_back_as_far_as_there_are_snapshots(miniature: Gemma, picture: Path) -> None:
    """A turn takes two of them: where it begins, and where the model's answer does."""
    conversation = spoken(miniature, snapshots=6)
    for question in ("Hello", "How are you?", "What is this?", "Who are you?"):
        if question == "What is this?":
            conversation.attach("image", picture)
        say(conversation, FILLER + question)
    conversation.undo()
    conversation.undo()
    answer = conversation.ask("And now?")
    expected = cold(miniature, conversation, "And now?", FEW)
    reply = finish(answer)
    assert reply.reused_tokens == tokens_before(miniature, conversation, answer) > WINDOW
    assert reply.tokens == expected


def test_more_undos_than_snapshots_are_exact_all_the_same(miniature: Gemma) -> None:
    conversation = spoken(miniature)
    for question in (FILLER + "Hello", FILLER + "Who are you?", "What is 2 + 3?"):
        say(conversation, question)
    conversation.undo()
    conversation.undo()
    expected = cold(miniature, conversation, "And now?", FEW)
    assert finish(conversation.ask("And now?")).tokens == expected


def test_a_retry_re_uses_the_message_and_draws_another_answer(miniature: Gemma, picture: Path) -> None:
    """A seed that is fixed moves on, so the second retry draws otherwise too, and each can be had again."""
    drawn = Sampling(temperature=3.0, top_k=0, top_p=1.0, seed=11)
    conversation = Conversation(miniature, max_tokens=FEW, sampling=drawn)
    say(conversation, FILLER + "Hello")
    conversation.attach("image", picture)
    answers = [say(conversation, FILLER + "What is this?")]
    for retry in (1, 2):
        reply = finish(conversation.retry())
        assert reply.reused_tokens > max(WINDOW, reply.prompt_tokens - 10)  # all but where the model's turn begins
        messages = [*conversation.messages[:2], conversation.turns[-1].message]
        sampling = replace(drawn, seed=11 + retry)
        assert reply.tokens == miniature.reply(messages, max_tokens=FEW, sampling=sampling).tokens
        assert conversation.keep(reply)
        assert conversation.turns[-1].answer == reply.text
        answers.append(reply)
    assert len(conversation.turns) == 2
    assert len({reply.text for reply in answers}) == 3


def test_a_greedy_retry_is_refused_unless_the_answer_may_be_another(miniature: Gemma) -> None:
    conversation = Conversation(miniature, max_tokens=12)
    with pytest.raises(UsageError, match="no message"):
        conversation.retry()
    whole = say(conversation, "Hello")
    assert whole.finish_reason == "stop"
    with pytest.raises(UsageError, match="the same answer again"):
        conversation.retry()
    conversation.system = "Be brief."
    assert conversation.keep(finish(conversation.retry()))
    conversation.undo()
    stopped = finish(conversation.ask("Hello"), 2)
    conversation.keep(stopped)
    assert (
        finish(conversation.retry()).text
        == miniature.reply(
            [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hello"}], max_tokens=12
        ).text
    )


def test_a_retry_that_fails_leaves_the_old_answer(miniature: Gemma) -> None:
    conversation = Conversation(miniature, max_tokens=12, sampling=Sampling(temperature=1.0))
    say(conversation, "Hello")
    before = conversation.messages
    answer = conversation.retry()
    assert not conversation.keep(answer.reply)
    assert conversation.messages == before
    say(conversation, "Who are you?")
    assert len(conversation.turns) == 2


def test_edit_gives_the_message_back_with_its_media(miniature: Gemma, picture: Path, tone: Path) -> None:
    conversation = Conversation(miniature, max_tokens=12)
    assert conversation.undo() is None
    assert conversation.edit() is None
    first = conversation.attach("image", picture)
    say(conversation, "What is this?")
    later = conversation.attach("audio", tone)
    turn = conversation.edit()
    assert turn is not None
    assert turn.text == "What is this?"
    assert conversation.waiting == [first, later]
    assert conversation.messages == []
    say(conversation, "What colour is it?")
    assert [part["type"] for part in conversation.messages[0]["content"]] == ["image", "text", "audio"]


def test_a_picture_and_samples_need_no_file_and_each_can_be_taken_back(miniature: Gemma) -> None:
    conversation = Conversation(miniature)
    shot = conversation.attach("image", Image.new("RGBA", (96, 96), (9, 8, 7, 100)), "screenshot 1")
    said = conversation.attach("audio", (np.zeros(8000, dtype=np.float32), 8000))
    assert shot.label == "screenshot 1 96x96 -> 64 tokens"
    assert said.label == "sound 1.0 s -> 25 tokens"
    conversation.waiting.remove(shot)
    assert conversation.waiting == [said]
