"""A chat resumed is the chat that was left: the same answers, media and settings, and nothing computed twice."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest
from PIL import Image

from gemma_mlx.errors import GemmaError, UsageError
from gemma_mlx.gemma import Gemma
from gemma_mlx.tasks.conversation import Conversation
from gemma_mlx.tasks.kept_chats import latest_chat, list_chats, new_chat, open_chat
from gemma_mlx.tasks.kept_conversation import Chosen, kept_chat, kept_conversation
from gemma_mlx.tasks.turn import Settings, Turn
from tests.tasks.test_conversation import FEW, FILLER, finish, say

pytestmark = pytest.mark.usefixtures("own_home")


def opened(gemma: Gemma, *, resume: bool = True, **asked: object) -> tuple[Conversation, list[str]]:
    return kept_conversation(gemma, kept_chat(Chosen(resume=resume)), Settings(**asked), max_tokens=FEW)  # type: ignore[arg-type]


def begun(gemma: Gemma, picture: Path, filler: str = "", **asked: object) -> Conversation:
    """A chat with a picture of a file, one of none, and a recording."""
    conversation, _ = opened(gemma, resume=False, **asked)
    conversation.attach("image", picture)
    say(conversation, filler + "What is this?")
    conversation.detail = 140
    conversation.attach("image", Image.new("RGB", (200, 100), (1, 99, 7)), "screenshot")
    conversation.attach("audio", (np.sin(np.arange(30_001) / 9).astype(np.float32) * 1.2, 44_100), "recording")
    say(conversation, filler + "And this?")
    return conversation


@pytest.mark.parametrize("cache", ["saved", "killed before", "damaged", "another model's"])
def test_a_resumed_chat_goes_on_as_if_it_had_not_been_left(
    miniature: Gemma, picture: Path, cache: str, own_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    chat = begun(miniature, picture, FILLER if cache == "saved" else "", system="Be brief.")
    left = [(item.digest, item.label, item.detail) for turn in chat.turns for item in turn.attached]
    whole = say(chat, "What is 2 + 3?")
    chat.undo()
    if cache == "killed before":
        assert chat.record is not None
        chat.record.close()
    else:
        chat.close()
    if cache == "another model's":
        monkeypatch.setattr(miniature, "identity", replace(miniature.identity, model="another"))
    if cache == "damaged":
        [path] = own_home.glob("chats/*/cache")
        data = path.read_bytes()
        path.write_bytes(data[: len(data) // 2])
    again, notes = opened(miniature)
    assert [(item.digest, item.label, item.detail) for turn in again.turns for item in turn.attached] == left
    assert all(item.media is not None for turn in again.turns for item in turn.attached)
    assert again.settings == Settings("Be brief.", False, 140)
    assert [turn.figures for turn in again.turns] == [dict(turn.figures) for turn in chat.turns]
    reply = say(again, "What is 2 + 3?")
    assert (reply.tokens, reply.prompt_tokens) == (whole.tokens, whole.prompt_tokens)
    assert reply.reused_tokens == 0 if cache != "saved" else reply.reused_tokens > 256
    why = {"damaged": ["it is damaged"], "another model's": ["it is of another model"]}.get(cache, [])
    assert [note.split(": ")[1].split(";")[0] for note in notes] == why
    again.close()


def test_a_chat_that_is_closed_holds_no_memory_beside_the_next_one(miniature: Gemma) -> None:
    say(Conversation(miniature, max_tokens=FEW), "Hello")
    without_bytes = mx.get_active_memory()
    chat, _ = opened(miniature, resume=False)
    say(chat, FILLER)
    held_bytes = mx.get_active_memory() - without_bytes
    chat.close()
    assert mx.get_active_memory() - without_bytes < held_bytes / 4
    again, _ = opened(miniature)
    assert say(again, "Hello").reused_tokens > 100
    again.close()


def test_a_message_that_no_answer_came_to_waits_again(miniature: Gemma, picture: Path) -> None:
    chat = begun(miniature, picture)
    chat.attach("image", picture)
    chat.ask("What is that?")
    assert chat.record is not None
    chat.record.close()
    again, notes = opened(miniature)
    assert notes == []
    assert again.unsent_text == "What is that?"
    assert [item.name for item in again.waiting] == [picture.name]
    assert len(again.turns) == 2
    say(again, again.unsent_text)
    again.close()
    last, _ = opened(miniature)
    assert (last.unsent_text, last.waiting, len(last.turns)) == ("", [], 3)
    last.close()


def test_undo_retry_and_settings_are_kept(miniature: Gemma) -> None:
    chat, _ = opened(miniature, resume=False)
    say(chat, "Hello")
    say(chat, "Who are you?")
    chat.undo()
    chat.system = "Be brief."
    assert chat.keep(finish(chat.retry()))
    chat.thinking = True
    chat.close()
    again, _ = opened(miniature)
    assert again.turns[0].answer == chat.turns[0].answer
    assert (len(again.turns), again.settings) == (1, Settings("Be brief.", True))
    assert again.turns[0].settings.system == "Be brief."
    again.undo()
    again.close()
    last, _ = opened(miniature)
    assert (last.turns, last.settings) == ([], Settings("Be brief.", True))
    last.close()


def test_flags_of_a_resumed_chat_hold_over_what_was_kept(miniature: Gemma) -> None:
    chat, _ = opened(miniature, resume=False, system="Be brief.", detail=70)
    say(chat, "Hello")
    chat.close()
    again, _ = opened(miniature, system="Be kind.", detail="auto")
    assert again.settings == Settings("Be kind.", False, "auto")
    again.close()


def test_without_saving_nothing_at_all_is_written(miniature: Gemma, picture: Path, own_home: Path) -> None:
    chat, notes = kept_conversation(miniature, kept_chat(Chosen(save=False)), max_tokens=FEW)
    chat.attach("image", picture)
    say(chat, "What is this?")
    chat.undo()
    chat.save_cache_if_due()
    chat.close()
    assert (notes, chat.take_notes()) == ([], [])
    assert not own_home.exists()
    for chosen in (Chosen(resume=True, save=False), Chosen(name="Rome", save=False)):
        with pytest.raises(UsageError, match="leave --no-save out"):
            kept_chat(chosen)


def test_which_chat_is_wanted(miniature: Gemma) -> None:
    with pytest.raises(UsageError, match="no chat to resume"):
        kept_chat(Chosen(resume=True))
    with pytest.raises(UsageError, match="no chat 'Rome'"):
        kept_chat(Chosen(resume=True, name="Rome"))
    chat, _ = kept_conversation(miniature, kept_chat(Chosen(name="Rome")), max_tokens=FEW)
    assert list_chats() == []
    say(chat, "Hello")
    with pytest.raises(GemmaError, match="'Rome' is open elsewhere"):
        kept_chat(Chosen(name="Rome"))
    with pytest.raises(UsageError, match="'Rome' already"):
        new_chat("Rome")
    chat.close()
    again, _ = kept_conversation(miniature, kept_chat(Chosen(name="Rome")), max_tokens=FEW)
    assert len(again.turns) == 1
    again.close()


def test_media_that_were_lost_or_changed_are_said_and_the_chat_goes_on(
    miniature: Gemma, picture: Path, own_home: Path
) -> None:
    begun(miniature, picture).close()
    media = {path.suffix: path for path in own_home.glob("chats/*/media/*") if path.stat().st_size > 1000}
    media[".wav"].unlink()
    Image.new("RGB", (320, 240), "blue").save(next(path for path in own_home.glob("chats/*/media/*.png")))
    again, notes = opened(miniature)
    assert len(notes) == 2
    assert any("recording of an earlier message cannot be read any more" in note for note in notes)
    assert any("is not what it was" in note for note in notes)
    say(again, "Hello")
    again.close()
    assert len(latest_chat().record.turns) == 3


def test_turns_of_a_chat_that_could_not_be_saved_are_kept_by_the_one_that_takes_them_over(miniature: Gemma) -> None:
    before = [Turn("first", answer="One."), Turn("second", answer="Two.")]
    conversation = Conversation(miniature, record=new_chat("next"))
    conversation.take_over(before)
    assert conversation.undo() == before[1]
    conversation.close()
    assert [turn.text for turn in open_chat("next").record.turns.values()] == ["first"]
