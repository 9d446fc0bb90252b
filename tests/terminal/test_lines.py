"""The chat as lines: what a line gets of what was before it, typed and through a pipe."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from benchmarks.scripted import Script, ScriptedGemma, spoken
from gemma_mlx.errors import InputError
from gemma_mlx.tasks.conversation import Conversation
from gemma_mlx.terminal.chat.lines import LineChat
from gemma_mlx.terminal.chat.opening import Opening
from gemma_mlx.terminal.output import Output


class Talked:
    """A chat whose `lines` were read one after the other, ending with the last."""

    def __init__(
        self,
        *lines: str,
        scripts: tuple[Script, ...],
        piped: bool,
        picture: Path,
        unsent: str = "",
        other: str = "",
        max_tokens: int = 2048,
    ) -> None:
        self.gemma = ScriptedGemma(scripts, max_tokens=max_tokens)
        self.stood: list[str] = []
        """What stood in the line each time one was asked for."""
        left, coming = [unsent, other], iter(lines)

        def conversation(*_: Any) -> Conversation:
            found = Conversation(cast("Any", self.gemma))
            found.unsent_text = left.pop(0)
            if found.unsent_text:
                found.attach("image", picture)
            return found

        def read(typed: str) -> str:
            self.stood.append(typed)
            for line in coming:
                return line
            raise EOFError

        opening = cast("Opening", SimpleNamespace(another=conversation, max_tokens=max_tokens))
        self.failed = LineChat(opening, conversation(), Output(), read, piped).run()

    @property
    def asked(self) -> list[list[str]]:
        """Of each message the texts and the kinds of media in it, in their order."""
        return [[part.get("text", part["type"]) for part in message["content"]] for message in self.gemma.asked]


def test_a_message_that_no_answer_came_to_stands_in_the_line(media: Path) -> None:
    picture = media / "picture.png"
    chat = Talked("sent", scripts=(spoken("One."),), piped=False, picture=picture, unsent="unsent")
    assert chat.stood == ["unsent", ""]
    assert chat.asked == [["image", "sent"]]
    chat = Talked("/load other", "sent", scripts=(spoken("One."),), piped=False, picture=picture, other="unsent there")
    assert chat.stood == ["", "unsent there", ""]
    assert chat.asked == [["image", "sent"]]


def test_lines_of_a_pipe_get_nothing_of_a_message_that_no_answer_came_to(
    media: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lines, scripts = ("one", "/load other", "two"), (spoken("One."), spoken("Two."))
    chat = Talked(
        *lines, scripts=scripts, piped=True, picture=media / "picture.png", unsent="unsent", other="unsent there"
    )
    assert chat.asked == [["one"], ["two"]]
    told = [line for line in capsys.readouterr().err.splitlines() if "left out" in line]
    assert told == [f"the last message of this chat has no answer and is left out: {text}"
                    for text in ("unsent", "unsent there")]  # fmt: skip


def test_an_answer_that_is_cut_while_it_thinks_says_so_and_fails_in_a_pipe(
    media: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    scripts: tuple[Script, ...] = ([("thought", "Let "), ("thought", "me "), *spoken("never")], spoken("Two."))
    lines, picture = ("one", "/thoughts", "two"), media / "picture.png"
    chat = Talked(*lines, scripts=scripts, piped=True, picture=picture, max_tokens=2)
    assert chat.failed
    told = capsys.readouterr().err
    assert "the answer was cut after 2 tokens" in told
    assert "the message was not kept\n" in told
    assert told.splitlines().count("Let me ") == 2  # as it was thought, and once more
    assert chat.asked == [["one"], ["two"]]
    chat = Talked("one", scripts=scripts, piped=False, picture=picture, max_tokens=2)
    assert chat.stood == ["", "one"]
    assert "waits to be sent again" in capsys.readouterr().err


def test_the_picture_of_a_line_that_failed_goes_with_no_other_line_of_a_pipe(media: Path) -> None:
    lines, picture = (f"/image {media / 'picture.png'}", "one", "two"), media / "picture.png"
    for piped in (True, False):
        scripts: tuple[Script, ...] = ([InputError("too long; shorten it")], spoken("Two."))
        chat = Talked(*lines, scripts=scripts, piped=piped, picture=picture)
        assert chat.failed
        assert chat.asked == [["image", "one"], ["two"] if piped else ["image", "two"]]
