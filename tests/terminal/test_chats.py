from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image

from gemma_mlx.tasks.kept_chat import KeptChat
from gemma_mlx.tasks.turn import Turn, attached
from tests.terminal.conftest import Run


@pytest.fixture
def kept(own_home: Path) -> Path:
    """A chat called Rome; its folder."""
    chat = KeptChat(name="Rome")
    turn = Turn(
        "Hello",
        [attached("image", Image.new("RGB", (48, 48)), "a\x1b]0;b.png", 70)],
        asked_at="2026-11-20T09:30:00+01:00",
        answer="Hi \x1b[2J!",
        figures={"model": "gemma\x1b[2J-4bit"},
    )
    chat.ask(turn)
    chat.answer(turn)
    chat.close()
    return own_home / "chats" / "Rome"


def test_chats_are_listed_for_a_person_and_for_a_program(run: Run, kept: Path) -> None:
    ended = run("chats")
    assert ended.code == 0
    [line] = ended.out.splitlines()
    assert line.startswith("Rome  20")
    assert "1 turn " in line
    assert line.endswith("gemma␛[2J-4bit")
    [line] = run("chats", "--json").out.splitlines()
    [chat] = json.loads(line)["chats"]
    assert (chat["name"], chat["turns"], chat["model"]) == ("Rome", 1, "gemma\x1b[2J-4bit")
    assert json.loads(line)["folder"] == str(kept.parent)


def test_without_any_the_list_is_empty(run: Run) -> None:
    ended = run("chats")
    assert (ended.code, ended.out) == (0, "")
    assert "no chats are kept yet" in ended.err
    assert json.loads(run("chats", "--json").out)["chats"] == []


def test_a_chat_is_exported_and_not_over_a_file(run: Run, kept: Path, tmp_path: Path) -> None:
    path = tmp_path / "rome.md"
    assert run("chats", "export", "Rome", path).code == 0
    text = path.read_text(encoding="utf-8")
    assert text.startswith("# Rome\n\n## User\n")
    assert "(rome.md.media/1.png)" in text
    refused = run("chats", "export", "Rome", path)
    assert (refused.code, len(refused.errors)) == (2, 1)
    assert run("chats", "export", "Rome", path, "--force").code == 0
    assert run("chats", "export", "Paris", tmp_path / "paris.md").code == 2


def test_a_chat_is_deleted(run: Run, kept: Path) -> None:
    refused = run("chats", "delete", "../chats/Rome")
    assert (refused.code, len(refused.errors)) == (2, 1)
    assert kept.is_dir()
    assert run("chats", "delete", "Rome").code == 0
    assert not kept.exists()
    assert run("chats", "delete", "Rome").code == 2


def test_json_before_another_verb_has_no_effect_and_is_refused(run: Run, kept: Path) -> None:
    assert run("chats", "--json", "delete", "Rome").code == 2
    assert kept.is_dir()
