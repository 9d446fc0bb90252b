"""Records a chat with the miniature as somebody would hold it, and films it: chat.cast and chat.gif in this folder.

    python -m assets.demo

It is the real program in a real terminal, with a screen (Xvfb) and a microphone (PulseAudio) that nobody sees or hears;
see `.ci/tools` for what has to be installed.
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from pathlib import Path

from PIL import Image

from assets.demo.film import write_gif
from assets.demo.recording import Recording
from benchmarks.virtual_microphone import VirtualMicrophone
from gemma_mlx.home import samples_folder
from gemma_mlx.inputs.waveform import read_waveform
from tests.terminal.x11 import virtual_screen

FOLDER = Path(__file__).parent
COLUMNS, ROWS = 88, 27
READ_S = 1.2
"""For whoever looks on to read what has come."""
ENTER, PASTE = "\r", ("\x1b[200~", "\x1b[201~")
TEXT = ("text-00.png", "G6O1Q")
"""What the screen shows."""


def main() -> None:
    """Writes both files."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        shutil.copy(samples_folder() / "scene-03.png", folder / "my scene.png")
        (folder / "screen").mkdir()
        with Image.open(samples_folder() / TEXT[0]) as text:
            text.load()
        with virtual_screen(folder / "screen", text.size) as screen, VirtualMicrophone() as microphone:
            screen.draw(text)
            own = {"GEMMA_MLX_HOME": str(folder / "home"), "DISPLAY": screen.display}
            kind = {"TERM": "xterm-256color", "COLORTERM": "truecolor", "LANG": "C.UTF-8"}
            environment = {**os.environ, **microphone.environment, **kind, **own}
            command = [sys.executable, "-m", "gemma_mlx", "chat"]
            recording = Recording(command, COLUMNS, ROWS, environment)
            try:
                _chat(recording, folder / "my scene.png", microphone)
            finally:
                recording.close()
    recording.write(FOLDER / "chat.cast", "gemma-mlx chat, with the miniature")
    write_gif(FOLDER / "chat.cast", FOLDER / "chat.gif")


def _chat(chat: Recording, picture: Path, microphone: VirtualMicrophone) -> None:
    chat.wait_for("context 0/")
    chat.wait(READ_S)
    chat.type("/shot screen")
    chat.press(ENTER)
    chat.wait_for("[1] screenshot")
    chat.wait(READ_S)
    chat.type("Read the text.")
    _send(chat, TEXT[1])
    chat.type("/reset")
    chat.press(ENTER)
    chat.wait_for("a new chat")
    chat.wait(READ_S)
    chat.press(f"{PASTE[0]}'{picture}' {PASTE[1]}")
    chat.wait_for("[y/N]")
    chat.wait(READ_S)
    chat.press("y")
    chat.wait_for("[1] my scene.png")
    chat.wait(READ_S)
    chat.type("What is in the picture?")
    _send(chat, "square.")
    chat.type("/mic dictate")
    chat.press(ENTER)
    chat.wait_for("00:01")
    microphone.play(read_waveform(samples_folder() / "speech-00.flac"))
    chat.wait_for("Enter keeps")
    chat.wait(READ_S)
    chat.press(ENTER)
    chat.wait_for("8 9 5 1")
    chat.wait(READ_S)
    chat.press("\x15")
    chat.type("/think on")
    chat.press(ENTER)
    chat.wait_for("thinking is on")
    chat.type("What is 2 + 3?")
    _send(chat, "= 5")
    chat.type("/stats")
    chat.press(ENTER)
    chat.wait_for("peak memory")
    chat.wait(READ_S)
    chat.press("\x04")
    chat.wait(READ_S)


def _send(chat: Recording, answered: str) -> None:
    """Sends what was typed, and waits for the end of the answer that holds `answered`."""
    chat.press(ENTER)
    chat.wait_for(lambda text: answered in text and "answering" not in text)
    chat.wait(READ_S)


if __name__ == "__main__":
    main()
