"""The chat on a real terminal, driven by keys."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif(shutil.which("tmux") is None, reason="needs tmux")

WAIT_S = 60


class Screen:
    """A tmux server of its own, of one window."""

    def __init__(self, command: list[str], columns: int = 80) -> None:
        self._socket = f"gemma-mlx-{uuid.uuid4().hex[:8]}"
        self._tmux("new-session", "-d", "-x", str(columns), "-y", "24", *command, ";", "set", "remain-on-exit", "on")

    def _tmux(self, *arguments: str) -> str:
        command = ["tmux", "-L", self._socket, "-f", "/dev/null", *arguments]
        return subprocess.run(command, capture_output=True, text=True).stdout

    def keys(self, *keys: str) -> None:
        self._tmux("send-keys", *keys)

    def text(self) -> str:
        return self._tmux("capture-pane", "-p", "-S", "-200")

    def wait_for(self, shown: Callable[[str], bool]) -> str:
        """The screen as soon as `shown` holds of it."""
        end_s = time.monotonic() + WAIT_S
        while not shown(text := self.text()):
            assert time.monotonic() < end_s, text
            time.sleep(0.1)
        return text

    def ended(self) -> bool:
        """Whether the command has ended (tmux does not always notice with which code)."""
        return self._tmux("list-panes", "-F", "#{pane_dead}").strip() == "1"

    def close(self) -> None:
        self._tmux("kill-server")


@pytest.fixture
def screen(endless_model: Path, own_home: Path) -> Iterator[Screen]:
    """A chat with a model that never ends its turn."""
    environment = [f"GEMMA_MLX_HOME={own_home}", f"PATH={os.environ['PATH']}", f"PYTHONPATH={Path.cwd()}"]
    flags = ["-m", str(endless_model), "-n", "4000", "-t", "20", "--top-k", "0", "--top-p", "1"]
    screen = Screen(["env", *environment, sys.executable, "-m", "gemma_mlx", "chat", *flags])
    yield screen
    screen.close()


def test_a_typed_message_is_answered_stopped_and_left(screen: Screen, own_home: Path) -> None:
    screen.wait_for(lambda text: "context 0/" in text)
    screen.keys("Hello", "Enter")
    screen.wait_for(lambda text: len(text.partition("> Hello")[2].strip()) > 200)
    screen.keys("C-c")
    stopped = screen.wait_for(lambda text: "answering" not in text)
    assert "Traceback" not in stopped
    screen.keys("C-c")
    screen.wait_for(lambda text: "Ctrl-C once more" in text)
    screen.keys("/quit", "Enter")
    assert "Traceback" not in screen.wait_for(lambda _: screen.ended())
    assert "Hello" in (own_home / "history").read_text(encoding="utf-8")
