"""Commands on the screen, and the order in which things typed are done."""

from __future__ import annotations

import json
import time
from pathlib import Path
from threading import Event
from typing import Any

import pytest

from benchmarks.scripted import ScriptedGemma, spoken
from gemma_mlx.tasks.conversation import Conversation
from gemma_mlx.tasks.turn import Turn
from gemma_mlx.terminal.chat.commands import BY_NAME, COMMANDS, HELP
from tests.terminal.screen.terminal import Chat, play


def media_kinds(chat: Chat, message: int) -> list[str]:
    """Of the media in the message that was sent as number `message`."""
    return [part["type"] for part in chat.gemma.asked[message]["content"] if part["type"] != "text"]


def test_help_fits_the_smallest_usual_window_and_names_every_command() -> None:
    assert len(HELP.splitlines()) <= 21
    assert max(map(len, HELP.splitlines())) < 80
    assert all(f"/{name}" in HELP for name in BY_NAME)
    assert all(command.help for command in COMMANDS)

    async def scenario(chat: Chat) -> None:
        chat.type("/help\r")
        await chat.see("twice in an empty line leaves")
        assert "> /help" in chat.terminal.visible_rows

    play(scenario)


@pytest.mark.parametrize(
    "line",
    ["/", "/nonsense", "/image", "/image no/such.png", "/drop x", "/drop 9", "/detail 71", "/think maybe", "/shot door",
     "/undo", "/retry", "/edit", "/copy", "/save", "/save x", "/export", "/export x.doc",
     "/mic 99999", "/undo 2", "/quit now", "/drop ²", "/model ~no-such-user/x"],
)  # fmt: skip
def test_a_wrong_command_is_one_error_and_the_chat_goes_on(line: str) -> None:
    async def scenario(chat: Chat) -> None:
        chat.type(f"{line}\r")
        await chat.see("error: ")
        assert "not expected" not in chat.text
        chat.type("\x15Hello\r")
        await chat.see("Still here.")

    play(scenario, spoken("Still here."), columns=200)


def test_a_message_takes_along_what_was_attached_before_it_while_the_model_loads(media: Path) -> None:
    loaded, gemma = Event(), ScriptedGemma([spoken("One."), spoken("Two.")])

    def begin(_: Any) -> Conversation:
        loaded.wait(20)
        return Conversation(gemma)

    async def scenario(chat: Chat) -> None:
        chat.type(f"/image {media / 'picture.png'}\rWhat is this?\rAnd now?\r")
        await chat.see("[waits] And now?")
        loaded.set()
        await chat.see("Two.")

    chat = play(scenario, gemma=gemma, begin=begin)
    assert chat.asked == ["What is this?", "And now?"]
    assert (media_kinds(chat, 0), media_kinds(chat, 1)) == (["image"], [])


def test_a_picture_of_the_command_line_goes_with_the_first_message_however_soon_it_is_typed(media: Path) -> None:
    async def scenario(chat: Chat) -> None:
        chat.type("What is this?\r")
        await chat.see("One.")

    chat = play(scenario, spoken("One."), files=[("image", media / "picture.png")])
    assert media_kinds(chat, 0) == ["image"]


def test_a_message_is_not_sent_without_the_picture_that_could_not_be_read(media: Path) -> None:
    async def scenario(chat: Chat) -> None:
        chat.type(f"/image {media / 'cut.png'}\rWhat is this?\r")
        await chat.see("the message was not sent")
        await chat.see("> What is this?\nscripted")
        chat.type("\r")
        await chat.see("One.")

    assert play(scenario, spoken("One.")).asked == ["What is this?"]


def test_a_message_waits_for_the_files_that_were_dropped_before_it(
    media: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read, prepared = Event(), Conversation.prepared

    def slowly(*given: Any) -> Any:
        read.wait(20)
        return prepared(*given)

    monkeypatch.setattr(Conversation, "prepared", slowly)

    async def scenario(chat: Chat) -> None:
        chat.paste(f"'{media / 'picture.png'}'")
        await chat.see("[y/N]")
        chat.type("y")
        await chat.see("[reading picture.png")
        chat.type("What is this?\r")
        await chat.see("[waits] What is this?")
        read.set()
        await chat.see("One.")

    chat = play(scenario, spoken("One."))
    assert media_kinds(chat, 0) == ["image"]


def test_pictures_go_with_the_messages_they_were_typed_for_however_long_they_are_read(
    media: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first_read, prepared = Event(), Conversation.prepared

    def first_slowly(self: Conversation, kind: Any, source: Any, name: str = "") -> Any:
        if Path(source).name == "first.png":
            first_read.wait(20)
        return prepared(self, kind, source, name)

    for name in ("first", "second", "third"):
        (media.parent / f"{name}.png").write_bytes((media / "picture.png").read_bytes())
    monkeypatch.setattr(Conversation, "prepared", first_slowly)

    async def scenario(chat: Chat) -> None:
        chat.type(f"/image {media.parent / 'first.png'}\r/image {media.parent / 'second.png'}\rThese?\r")
        chat.type(f"/image {media.parent / 'third.png'}\rAnd this?\r")
        await chat.see("[waits] And this?")
        await chat.see("[reading third.png")
        first_read.set()
        await chat.see("Two.")

    gemma = ScriptedGemma([spoken("One."), spoken("Two.")])
    conversation = Conversation(gemma)
    chat = play(scenario, gemma=gemma, begin=lambda _: conversation, columns=200)
    assert chat.asked == ["These?", "And this?"]
    names = [[item.name for item in turn.attached] for turn in conversation.turns]
    assert names == [["first.png", "second.png"], ["third.png"]]


def test_undo_edit_and_retry(media: Path) -> None:
    async def scenario(chat: Chat) -> None:
        chat.type(f"/image {media / 'picture.png'}\rfirst\r")
        await chat.answered("One.")
        chat.type("/retry\r")
        await chat.answered("Two.")
        chat.type("second\r")
        await chat.answered("Three.")
        chat.type("/undo\r")
        await chat.see("taken back: second")
        chat.type("/edit\r")
        await chat.see("> first")
        await chat.see("[1] picture.png")
        chat.type(" again\r")
        await chat.see("Four.")

    chat = play(scenario, *(spoken(f"{word}.") for word in ("One", "Two", "Three", "Four")))
    assert chat.asked == ["first", "first", "second", "first again"]
    assert [media_kinds(chat, number) for number in range(4)] == [["image"], ["image"], [], ["image"]]


def test_settings_say_what_they_are_now() -> None:
    async def scenario(chat: Chat) -> None:
        chat.type("/think 50\r/detail 140\r/system Be brief.\r/drop\r/model\r/sessions\r")
        await chat.see("thinking is on, for at most 50 tokens")
        await chat.see("up to 140 tokens")
        await chat.see("the system message is set")
        await chat.see("nothing waits for the next message")
        await chat.see("scripted (a miniature) in scripted")
        await chat.see("no chat is kept yet")
        chat.type("Hello\r")
        await chat.see("Yes.")

    play(scenario, spoken("Yes."))


def test_an_export_holds_what_was_said(tmp_path: Path) -> None:
    async def scenario(chat: Chat) -> None:
        chat.type("Hello\r")
        await chat.answered("Yes.")
        chat.type(f"/export {tmp_path / 'chat.json'}\r")
        await chat.see("written: ")

    play(scenario, spoken("Yes."))
    written = json.loads((tmp_path / "chat.json").read_text(encoding="utf-8"))
    assert "Hello" in json.dumps(written)
    assert "Yes." in json.dumps(written)


def test_leaving_answers_no_message_that_waits() -> None:
    more = Event()

    async def scenario(chat: Chat) -> None:
        chat.type("one\rtwo\r")
        await chat.see(lambda text: "Begun" in text and "[waits] two" in text)
        chat.type("\x04")
        await chat.stopping()
        more.set()

    chat = play(scenario, [*spoken("Begun "), more, *spoken("on and on")], spoken("never"), leave=False)
    assert chat.asked == ["one"]
    assert "on and on" not in chat.text


@pytest.mark.parametrize("command", ["/model other", "/load other"])
def test_leaving_while_another_chat_comes_waits_until_the_one_before_is_closed(command: str) -> None:
    gemma, closing, closed = ScriptedGemma([]), Event(), Event()
    conversation = Conversation(gemma)

    def close() -> None:
        closing.set()
        time.sleep(0.3)  # a chat that is not waited for is left by then
        closed.set()

    def another(before: Conversation, *_: Any) -> Conversation:
        before.close()
        return before

    conversation.close = close  # type: ignore[method-assign]

    async def scenario(chat: Chat) -> None:
        chat.type(f"{command}\r")
        await chat.see(lambda _: closing.is_set())
        chat.type("\x04")

    play(scenario, begin=lambda _: conversation, another=another, with_model=another, leave=False)
    assert closed.is_set()


def test_commands_that_change_turns_wait_for_no_answer() -> None:
    more = Event()

    async def scenario(chat: Chat) -> None:
        chat.type("one\r")
        await chat.see("Begun")
        chat.type("/undo\r")
        await chat.see("error: /undo")
        chat.type("/stats\r")
        await chat.see("memory 1.00 of 2.00 GB")
        more.set()
        await chat.see("ended")

    play(scenario, [*spoken("Begun "), more, *spoken("and ended")])


@pytest.mark.parametrize(
    "command", ["/undo", "/retry", "/edit", "/load other", "/save other", "/model other", "/reset"]
)
def test_no_command_that_changes_the_chat_overtakes_a_message(command: str) -> None:
    loaded, gemma = Event(), ScriptedGemma([spoken("Two.")])

    def begin(_: Any) -> Conversation:
        loaded.wait(20)
        conversation = Conversation(gemma)
        conversation.take_over([Turn("first", answer="One.")])
        return conversation

    async def scenario(chat: Chat) -> None:
        await chat.see("loading")
        chat.type(f"second\r{command}\r")
        await chat.see(f"> {command}\n")
        loaded.set()
        await chat.see(f"error: {command.split()[0]} overtakes no messages that wait")
        await chat.answered("Two.")
        assert [turn.text for turn in (await chat.screen.conversation()).turns] == ["first", "second"]

    assert play(scenario, gemma=gemma, begin=begin).asked == ["second"]


def test_the_message_that_no_answer_came_to_in_a_loaded_chat_waits_to_be_sent(media: Path) -> None:
    gemma = ScriptedGemma([spoken("Yes.")])

    def another(*_: Any) -> Conversation:
        conversation = Conversation(gemma)
        conversation.unsent_text = "What is this?"
        conversation.attach("image", media / "picture.png")
        return conversation

    async def scenario(chat: Chat) -> None:
        chat.type("/load other\r")
        await chat.see(lambda text: "[1] picture.png 320x240" in text and "\n> What is this?\n" in text)
        chat.type("\r")
        await chat.answered("Yes.")

    chat = play(scenario, gemma=gemma, another=another)
    assert chat.asked == ["What is this?"]
    assert media_kinds(chat, 0) == ["image"]
