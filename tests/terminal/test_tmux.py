"""The chat on a real terminal: stopped, left, killed and gone on with; turns taken back, asked again and changed."""

from __future__ import annotations

from pathlib import Path

from gemma_mlx.home import samples_folder
from tests.terminal.conftest import OpenChat
from tests.terminal.kept import KeptFiles
from tests.terminal.tmux import ENDLESS


def test_a_typed_message_is_answered_stopped_and_left(open_chat: OpenChat, endless_model: Path, own_home: Path) -> None:
    chat = open_chat("-m", endless_model, *ENDLESS)
    chat.wait_until_ready()
    chat.enter("Hello")
    chat.wait_for(lambda text: len(text.partition("> Hello")[2].strip()) > 200)
    chat.keys("C-c")
    chat.wait_until_ready()
    chat.keys("C-c")
    chat.wait_for("Ctrl-C once more")
    chat.keys("C-c")
    assert "Traceback" not in chat.wait_for(lambda _: chat.ended)
    assert "Hello" in (own_home / "history").read_text(encoding="utf-8")
    kept = KeptFiles(own_home)
    assert kept.kinds == ["asked", "answered"]
    assert len(kept.answered[0]["answer"]) > 100
    assert kept.open_to_others == []


def test_a_killed_chat_goes_on_with_its_turns_media_and_what_was_computed(
    open_chat: OpenChat, endless_model: Path, own_home: Path
) -> None:
    first = open_chat()
    first.wait_until_ready()
    first.enter(f"/image {samples_folder() / 'scene.png'}")
    first.wait_for("[1] scene.png 401x605 -> 60 tokens")
    first.ask("Describe the picture.", "A red circle")
    first.leave()
    kept = KeptFiles(own_home)
    computed_tokens = kept.answered[0]["figures"]["prompt_tokens"]

    second = open_chat("--resume", "-m", endless_model, *ENDLESS)
    second.wait_until_ready()
    second.wait_for("> Describe the picture.\n  [scene.png 401x605 -> 60 tokens]\nA red circle")
    second.enter(f"/image {samples_folder() / 'text.png'}")
    second.wait_for("[1] text.png")
    second.enter("What is the text?")
    second.wait_for(lambda text: len(text.partition("> What is the text?")[2].strip()) > 200)
    second.kill()
    assert kept.kinds == ["asked", "answered", "asked"]
    assert len(kept.media) == 2

    third = open_chat("--resume")
    third.wait_for(lambda text: "> What is the text?" in text and "[1] text.png" in text)
    third.keys("Enter")
    third.wait_for(lambda _: len(kept.answered) == 2 and third.is_ready)
    third.enter("Which shapes are in the picture?")
    third.wait_for(lambda _: len(kept.answered) == 3 and third.is_ready)
    third.leave()
    assert [line["turn"] for line in kept.answered] == [1, 3, 4]
    assert kept.answered[1]["figures"]["reused_tokens"] >= computed_tokens - 10
    assert kept.answered[1]["figures"]["image_tokens"] > kept.answered[0]["figures"]["image_tokens"]
    assert kept.open_to_others == []


def test_undo_retry_and_edit_change_the_last_turn(open_chat: OpenChat, own_home: Path) -> None:
    chat = open_chat("-t", 1.5, "--top-k", 0, "--top-p", 1, "--seed", 3, "-n", 40)
    chat.wait_until_ready()
    chat.enter("Tell me a story.")
    chat.wait_for("first ")
    chat.enter("/retry")
    chat.wait_for("> /retry")
    kept = KeptFiles(own_home)
    chat.wait_for(lambda _: len(kept.answered) == 2 and chat.is_ready)
    first, second = kept.answered
    assert first["turn"] == second["turn"]
    assert first["answer"] != second["answer"]
    chat.enter("/undo")
    chat.wait_for("taken back: Tell me a story.")
    chat.enter("/undo")
    chat.wait_for("error: there is no turn to undo; the chat has not begun")
    chat.enter(f"/image {samples_folder() / 'scene.png'}")
    chat.wait_for("[1] scene.png 401x605 -> 60 tokens")
    chat.enter("What is 2 + 3?")
    chat.wait_for(lambda _: len(kept.answered) == 3 and chat.is_ready)
    chat.enter("/edit")
    chat.wait_for("the turn is taken back; change it, and send it again")
    assert chat.rows[-3].startswith("[1] scene.png")
    assert chat.rows[-2] == "> What is 2 + 3?"
    chat.keys(*["BSpace"] * 2)
    chat.enter("4?")
    chat.wait_for(lambda _: len(kept.answered) == 4 and chat.is_ready)
    chat.leave()
    assert " ".join(kept.kinds) == "asked answered answered undone asked answered undone asked answered"
    assert [line["text"] for line in kept.asked] == ["Tell me a story.", "What is 2 + 3?", "What is 2 + 4?"]
    assert kept.asked[-1]["media"] == kept.asked[-2]["media"]
    assert len(kept.media) == 1
