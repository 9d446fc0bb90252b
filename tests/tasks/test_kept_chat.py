"""What a chat said is on the disk: whatever happens to who says it, for its owner alone, and under a harmless name."""

from __future__ import annotations

import json
import os
import random
import resource
import stat
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from gemma_mlx.errors import GemmaError, UsageError
from gemma_mlx.tasks.kept_chat import KeptChat, chats_folder
from gemma_mlx.tasks.kept_chats import delete_chat, latest_chat, list_chats, open_chat, read_chat
from gemma_mlx.tasks.turn import Settings, Turn, attached

pytestmark = pytest.mark.usefixtures("own_home")


def turn(text: str, answer: str = "") -> Turn:
    return Turn(text, asked_at="2026-11-20T09:30:00+01:00", answer=answer, figures={"model": "a model"})


def say(chat: KeptChat, text: str) -> list[str | None]:
    return [chat.ask(turn(text)), chat.answer(turn(text, f"to {text}"))]


def texts(chat: KeptChat) -> list[tuple[str, str]]:
    return [(turn.text, turn.answer) for turn in chat.record.turns.values()]


def test_settings_from_another_thread_cost_no_line() -> None:
    chat = KeptChat(name="talk")
    say(chat, "first")

    def set_detail(number: int) -> str | None:
        return chat.set_settings(Settings(system=str(number)))

    with ThreadPoolExecutor(1) as other:
        told = other.map(set_detail, range(40))
        said = [say(chat, str(number)) for number in range(40)]
    assert set(told) == {None}
    assert all(notes == [None, None] for notes in said)
    chat.close()
    lines = [json.loads(line) for line in (chats_folder() / "talk" / "chat.jsonl").read_text().splitlines()]
    assert sorted(line["system"] for line in lines if line["line"] == "set") == sorted(map(str, range(40)))
    assert len(read_chat("talk").turns) == 41


_TALKER = """
import itertools, sys
from pathlib import Path
from PIL import Image
from gemma_mlx.tasks.kept_chat import KeptChat
from gemma_mlx.tasks.turn import Turn, attached

chat = KeptChat(name="talk")
for number in itertools.count():
    media = [attached("image", Image.new("RGB", (48, 48), (number % 256, number // 256, 0)), "shot", 70)]
    turn = Turn(f"message {number}", media, answer="answer " * 1000 + str(number))
    for done in (chat.ask(turn), chat.answer(turn)):
        assert done is None, done
    if number % 3 == 2:
        assert chat.forget_last() is None
    print(number, flush=True)
"""


@pytest.mark.parametrize("seed", range(3))
def test_a_kill_at_any_moment_loses_nothing_that_was_said(seed: int) -> None:
    """What the process told of is there, whole; of what it was at, there may be a message more."""
    chance = random.Random(seed)
    command = [sys.executable, "-c", _TALKER]
    with subprocess.Popen(command, cwd=Path(__file__).parents[2], stdout=subprocess.PIPE) as talker:
        assert talker.stdout is not None
        for _ in range(chance.randrange(1, 20)):
            told = int(talker.stdout.readline())
        for _ in range(chance.randrange(0, 20_000)):  # some more of its moments
            pass
        talker.kill()
        told = max([told, *map(int, talker.stdout.read().split())])
    chat = open_chat("talk")
    record, found = chat.record, [int(turn.text.split()[1]) for turn in chat.record.turns.values()]
    assert record.passed_over == 0
    assert [number for number in found if number <= told] == [n for n in range(told + 1) if n % 3 != 2]
    assert len([number for number in found if number > told]) <= 1
    for kept in [*record.turns.values(), *([record.unanswered] if record.unanswered else [])]:
        [item] = kept.attached
        digest = item.digest
        item.prepare()
        assert item.digest == digest
        assert not kept.answer or kept.answer.endswith(f" {kept.text.split()[1]}")
    assert say(chat, "message 1000000") == [None, None]
    chat.close()


def test_a_full_disk_is_said_and_made_up_for_by_the_next_turn() -> None:
    chat = KeptChat(name="full")
    assert say(chat, "first") == [None, None]
    picture = attached("image", Image.fromarray(_noise()), "shot", 70)
    with_picture = Turn("second", [picture])
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, ((chats_folder() / "full" / "chat.jsonl").stat().st_size, hard))
    try:
        notes = [chat.ask(with_picture), chat.answer(turn("second", "to second"))]
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    for note in notes:
        assert note is not None
        assert note.startswith("the chat is not saved (")
        assert "\n" not in note
    before = read_chat("full")
    assert (len(before.turns), before.passed_over) == (1, 0)
    assert chat.ask(turn("third")) == "the chat is saved again, whole"
    assert chat.answer(turn("third", "to third")) is None
    assert chat.close() is None
    assert texts(open_chat("full")) == [("first", "to first"), ("second", "to second"), ("third", "to third")]


def _noise() -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    """A picture whose PNG is larger than a chat of a few lines."""
    return np.random.default_rng(1).integers(0, 256, (64, 64, 3), dtype=np.uint8)


def test_of_two_chats_begun_under_one_name_the_second_says_what_it_is_called() -> None:
    first, second = KeptChat(name="trip"), KeptChat(name="trip")
    assert say(first, "Hello") == [None, None]
    assert say(second, "Hello") == ["there is a chat 'trip' by now; this one is called 'trip-2'", None]
    assert second.name == "trip-2"
    first.close()
    second.close()


def test_a_disk_that_stays_full_loses_only_what_it_says() -> None:
    chat = KeptChat()
    blocker = chats_folder().parent
    blocker.write_bytes(b"")  # a file where the folder should be
    assert [str(note)[:22] for note in say(chat, "first")] == ["the chat is not saved "] * 2
    assert chat.close() == "the chat's last 2 entries could not be saved and are lost"
    assert blocker.read_bytes() == b""


def test_all_is_for_the_owner_alone() -> None:
    before = os.umask(0)
    try:
        chat = KeptChat()
        picture = attached("image", Image.new("RGB", (48, 48)), "shot", 70)
        chat.ask(Turn("Hello", [picture]))
    finally:
        os.umask(before)
    paths = [chats_folder().parent, chats_folder(), *chats_folder().rglob("*")]
    modes = {stat.S_IMODE(path.stat().st_mode) for path in paths if path.is_dir()}
    assert modes == {0o700}
    assert {stat.S_IMODE(path.stat().st_mode) for path in paths if path.is_file()} == {0o600}
    assert len(paths) == 6
    chat.close()


def test_originals_are_kept_byte_for_byte_and_once(tmp_path: Path) -> None:
    path = tmp_path / "photo of ö.JPG"
    Image.new("RGB", (64, 64), "red").save(path, "JPEG")
    chat = KeptChat(name="originals")
    for _ in range(2):
        chat.ask(Turn("Look", [attached("image", path, path.name, 70)]))
    [kept] = (chats_folder() / "originals" / "media").iterdir()
    assert kept.suffix == ".jpg"
    assert kept.read_bytes() == path.read_bytes()
    gone = attached("image", path, path.name, 70)
    path.unlink()
    note = chat.ask(Turn("Look", [gone]))
    assert note == "photo of ö.JPG is no longer where it was, so the chat is kept without it"
    chat.close()


def test_a_renamed_chat_keeps_its_media_and_its_lock() -> None:
    chat = KeptChat()
    picture = attached("image", Image.new("RGB", (48, 48)), "shot", 70)
    chat.ask(Turn("Look", [picture]))
    chat.answer(turn("Look", "I see"))
    say(other := KeptChat(name="taken"), "Hello")
    with pytest.raises(UsageError, match="'taken' already"):
        chat.rename("taken")
    chat.rename("trip to Rome")
    assert chat.name == "trip to Rome"
    with pytest.raises(GemmaError, match="'trip to Rome' is open elsewhere"):
        open_chat("trip to Rome")
    assert isinstance(picture.source, Path)
    assert picture.source.parent == chats_folder() / "trip to Rome" / "media"
    picture.prepare()
    assert chat.ask(Turn("Again", [picture])) is None
    assert len(list((chats_folder() / "trip to Rome" / "media").iterdir())) == 1
    chat.close()
    other.close()
    early = KeptChat()
    with pytest.raises(UsageError, match="'taken' already"):
        early.rename("taken")
    assert early.name is None
    early.rename("before its first word")
    say(early, "Hello")
    assert early.name == "before its first word"
    early.close()


@pytest.mark.parametrize(
    ("text", "ending"),
    [
        ("What is THIS, please?", "-what-is-this-please"),
        ("../../etc/passwd\x1b]0;x\x07\u202e", "-etc-passwd-0-x"),
        ("   \n", ""),
        ("x" * 3000, ""),
        ("Qu'est-ce que c'est ça", "-qu-est-ce-que-c-est-ça"),
    ],
)
def test_a_chat_is_called_by_the_minute_and_its_first_words(text: str, ending: str) -> None:
    chats = [KeptChat(), KeptChat()]
    for chat in chats:
        say(chat, text)
    first, second = (chat.name for chat in chats)
    assert first is not None
    assert first[15:] == ending
    assert second in (f"{first}-2", first[:11] + str(second)[11:15] + ending)
    assert sorted(path.name for path in chats_folder().iterdir()) == sorted([first, str(second)])
    for chat in chats:
        chat.close()


@pytest.mark.parametrize(
    "name",
    ["", " ", "../x", "a/b", "a\\b", "C:x", ".", "..", ".hidden", "-m", "a\x1b[2Jb", "a\nb", "a\u202eb", "n" * 300],
)
def test_a_name_that_is_a_place_or_does_not_show_is_refused_in_one_line(name: str) -> None:
    chat = KeptChat()
    for attempt in (chat.rename, open_chat, delete_chat, lambda name: KeptChat(name=name)):
        with pytest.raises(UsageError) as caught:
            attempt(name)
        message = str(caught.value)
        assert message.isprintable()
        assert len(message) < 200
    assert not chats_folder().exists()


def test_damaged_lines_harm_no_other_turn_and_stay() -> None:
    chat = KeptChat(name="damaged")
    for text in ("one", "two", "three"):
        say(chat, text)
    chat.close()
    path = chats_folder() / "damaged" / "chat.jsonl"
    lines = path.read_bytes().splitlines(keepends=True)
    lines[2] = b"\x00\xff" + lines[2][2:]
    lines.insert(2, b'{"line": "answered", "turn": 77}\n')
    lines.insert(0, b'{"line": "asked", "turn": 9, "text": "x", "media": [{"kind": "image", "file": "../../x"}]}\n')
    path.write_bytes(b"".join(lines))
    again = open_chat("damaged")
    assert texts(again) == [("one", "to one"), ("three", "to three")]
    assert again.record.passed_over == 4  # "to two" has no question any more
    say(again, "four")
    again.close()
    assert path.read_bytes().startswith(b"".join(lines))
    assert texts(open_chat("damaged"))[-1] == ("four", "to four")


def test_a_file_named_in_a_line_is_one_of_the_chats_own() -> None:
    chat = KeptChat(name="named")
    chat.ask(Turn("Look", [attached("image", Image.new("RGB", (48, 48)), "shot", 70)]))
    chat.close()
    path = chats_folder() / "named" / "chat.jsonl"
    line = json.loads(path.read_text(encoding="utf-8"))
    line["media"][0]["file"] = "../../../secret.png"
    path.write_text(json.dumps(line) + "\n", encoding="utf-8")
    unanswered = read_chat("named").unanswered
    assert unanswered is not None
    assert unanswered.attached[0].source == chats_folder() / "named" / "media" / "secret.png"


def test_chats_are_listed_the_latest_last_and_deleted_when_nobody_has_them() -> None:
    assert list_chats() == []
    for name in ("b", "a"):
        chat = KeptChat(name=name)
        say(chat, "Hello")
        chat.set_settings(Settings(thinking=True))
        chat.close()
        path = chats_folder() / name / "chat.jsonl"
        os.utime(path, (path.stat().st_mtime, 1_000_000 if name == "b" else 2_000_000))
    (chats_folder() / "no chat").mkdir()
    (chats_folder() / "link").symlink_to(chats_folder() / "a")
    listed = list_chats()
    assert [(chat.name, chat.turns, chat.model) for chat in listed] == [("b", 1, "a model"), ("a", 1, "a model")]
    assert listed[0].size_bytes == (chats_folder() / "b" / "chat.jsonl").stat().st_size
    latest = latest_chat()
    assert latest.name == "a"
    with pytest.raises(GemmaError, match="open elsewhere"):
        delete_chat("a")
    latest.close()
    delete_chat("a")
    with pytest.raises(UsageError, match="no chat 'link'"):
        delete_chat("link")
    assert [chat.name for chat in list_chats()] == ["b"]
    assert sorted(path.name for path in chats_folder().iterdir()) == ["b", "link", "no chat"]
