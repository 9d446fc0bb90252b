"""Pictures shown to the chat on a real terminal: files, dragged names, the screen and the clipboard."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from gemma_mlx.home import samples_folder
from tests.programs import require
from tests.terminal.conftest import OpenChat
from tests.terminal.kept import KeptFiles
from tests.terminal.tmux import Chat
from tests.terminal.x11 import VirtualScreen, virtual_screen


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with `my scene.png`, a red circle left of a blue square, and `text.png`."""
    folder = tmp_path / "new pictures"
    folder.mkdir()
    shutil.copy(samples_folder() / "scene.png", folder / "my scene.png")
    shutil.copy(samples_folder() / "text.png", folder / "text.png")
    return folder


def test_pictures_are_chips_until_they_are_sent(open_chat: OpenChat, folder: Path, own_home: Path) -> None:
    chat = open_chat()
    chat.wait_until_ready()
    chat.type(f"/image {folder}/my")
    chat.keys("Tab")
    chat.wait_for("my scene.png")
    chat.keys("Enter")
    chat.wait_for("[1] my scene.png 401x605 -> 60 tokens")
    chat.enter(f"/image '{folder / 'text.png'}'")
    chat.wait_for("[2] text.png 284x405 -> 63 tokens")
    chat.wait_for(lambda _: {"red", "blue"} <= half_block_colours(chat))
    chat.enter(f"/image {folder / 'no.png'}")
    chat.wait_for("no.png")
    chat.wait_for("error: ")
    chat.enter("/drop 1")
    chat.wait_for("taken back: my scene.png 401x605 -> 60 tokens")
    chat.wait_for(lambda _: chat.chips == ["[1] text.png 284x405 -> 63 tokens"])
    chat.enter("/drop")
    chat.wait_for("taken back: text.png")
    chat.wait_for(lambda _: chat.chips == [])
    chat.enter(f"/image {folder / 'text.png'}")
    chat.wait_for(lambda _: len(chat.chips) == 1)
    chat.enter(f"/image {folder / 'my scene.png'}")
    chat.wait_for(lambda _: len(chat.chips) == 2)
    chat.keys("BSpace")
    chat.wait_for(lambda _: chat.chips == ["[1] text.png 284x405 -> 63 tokens"])
    chat.ask("What is the text?", "GEMMA4")
    assert "> What is the text?\n  [text.png 284x405 -> 63 tokens]\nGEMMA4\n" in chat.text
    chat.wait_for(lambda _: chat.chips == [])
    chat.leave()
    kept = KeptFiles(own_home)
    [file] = kept.media
    assert file.read_bytes() == (folder / "text.png").read_bytes()
    assert kept.asked[0]["media"][0]["file"] == file.name
    assert kept.open_to_others == []


def test_a_dragged_name_is_a_picture_after_a_yes_and_text_after_a_no(
    open_chat: OpenChat, folder: Path, own_home: Path
) -> None:
    chat = open_chat()
    chat.wait_until_ready()
    chat.paste(str(folder / "my scene.png").replace(" ", "\\ ") + " ")
    chat.wait_for("attach my scene.png? [y/N]")
    chat.type("y")
    chat.wait_for("[1] my scene.png")
    chat.paste(f"'{folder / 'text.png'}'")
    chat.wait_for("attach text.png? [y/N]")
    chat.type("n")
    chat.wait_for(lambda _: "text.png'" in "".join(chat.rows[-3:-1]))
    chat.wait_for(lambda _: len(chat.chips) == 1)
    chat.keys("C-c")
    chat.wait_for(lambda _: chat.rows[-2] == ">")
    chat.ask("Describe the picture.", "A red circle")
    chat.leave()
    kept = KeptFiles(own_home)
    assert [item["name"] for item in kept.asked[0]["media"]] == ["my scene.png"]
    assert len(kept.media) == 1


@pytest.fixture
def x_screen(tmp_path: Path) -> Iterator[VirtualScreen]:
    require("Xvfb", "xclip")
    with virtual_screen(tmp_path) as screen:
        yield screen


def test_the_screen_and_the_clipboard_are_seen(open_chat: OpenChat, x_screen: VirtualScreen, own_home: Path) -> None:
    with Image.open(samples_folder() / "scene.png") as scene:
        x_screen.draw(scene)
    x_environment = {"DISPLAY": x_screen.display, "WAYLAND_DISPLAY": ""}
    chat = open_chat(environment=x_environment)
    chat.wait_until_ready()
    chat.enter("/shot screen")
    chat.wait_for("[1] screenshot 640x400")
    chat.wait_for(lambda _: {"red", "blue"} <= half_block_colours(chat))
    chat.enter("/paste")
    chat.wait_for("error: ")
    xclip = ["xclip", "-display", x_screen.display, "-selection", "clipboard"]
    subprocess.run([*xclip, "-t", "image/png", "-i", str(samples_folder() / "text.png")], check=True)
    chat.enter("/paste")
    chat.wait_for("[2] clipboard 284x405 -> 63 tokens")
    chat.enter("/drop 1")
    chat.wait_for("taken back: screenshot")
    chat.ask("What is the text?", "GEMMA4")
    chat.enter("/copy")
    chat.wait_for("copied, 6 characters")
    assert subprocess.run([*xclip, "-o"], check=True, capture_output=True).stdout == b"GEMMA4"
    chat.enter("/shot screen")
    chat.wait_for(lambda _: chat.chips == ["[1] screenshot 640x400 -> 60 tokens"])
    chat.enter("Describe the picture.")
    kept = KeptFiles(own_home)
    chat.wait_for(lambda _: len(kept.answered) == 2 and chat.is_ready)
    chat.leave()
    assert [item["name"] for line in kept.asked for item in line["media"]] == ["clipboard", "screenshot"]
    shown = {tuple(np.asarray(Image.open(path).convert("RGB")).shape) for path in kept.media}
    assert shown == {(405, 284, 3), (400, 640, 3)}


def half_block_colours(chat: Chat) -> set[str]:
    """Which of the two plain colours the halves of the blocks on the screen come near to."""
    found = set()
    for numbers in re.findall(r"[34]8;2;(\d+);(\d+);(\d+)", chat.styled):
        red, green, blue = map(int, numbers)
        if red > 150 and max(green, blue) < 100:
            found.add("red")
        elif blue > 150 and max(red, green) < 130:
            found.add("blue")
    return found
