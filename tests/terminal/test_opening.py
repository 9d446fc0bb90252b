"""Another chat after this one, in the same process."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest

from gemma_mlx.errors import UsageError
from gemma_mlx.tasks.conversation import Conversation
from gemma_mlx.terminal.chat.opening import Opening


class Said:
    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, line: str) -> None:
        self.lines.append(line)

    def status(self, line: str) -> None: ...
    def clear_status(self) -> None: ...


def chat(name: str | None, notes: list[str]) -> Conversation:
    record = SimpleNamespace(name=name) if name else None
    fields: dict[str, Any] = {"record": record, "close": lambda: None, "take_notes": lambda: notes}
    return cast("Conversation", SimpleNamespace(**fields, gemma=None, settings=None))


@pytest.fixture
def opening(monkeypatch: pytest.MonkeyPatch) -> Opening:
    monkeypatch.setattr(Opening, "_in", lambda *_: "the next chat")
    return Opening.__new__(Opening)


def test_what_is_lost_as_a_chat_is_closed_is_said(opening: Opening) -> None:
    said = Said()
    opening.another(chat(None, ["the last entry is lost"]), None, said)
    assert said.lines == ["the last entry is lost"]


def test_a_chat_is_not_loaded_over_itself(opening: Opening) -> None:
    with pytest.raises(UsageError, match="'Rome' is this one"):
        opening.another(chat("Rome", []), "Rome", Said())
