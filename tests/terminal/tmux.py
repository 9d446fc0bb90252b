"""A real terminal that nobody looks at: a program in a tmux window of its own, typed into and read by a test."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Mapping

from benchmarks.child import child_environment

WAIT_S = 60
"""For a busy machine; what comes is seen at once."""
LOOK_S = 0.05
ENDLESS = ("-n", 4000, "-t", 20, "--top-k", 0, "--top-p", 1, "--seed", 7)
"""With a model that never ends its turn: words drawn at random."""


class Terminal:
    """A tmux server of one window, with the environment of this process and what `environment` changes in it."""

    def __init__(
        self, command: list[str], columns: int = 80, rows: int = 24, environment: Mapping[str, str] | None = None
    ) -> None:
        self._socket = f"gemma-mlx-{uuid.uuid4().hex[:8]}"
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("TMUX")}
        changed = {"TERM": "xterm-256color", "LC_ALL": "C.UTF-8", **(environment or {})}
        self._environment = child_environment({**inherited, **changed})
        size = ("-x", str(columns), "-y", str(rows))
        self._tmux("new-session", "-d", *size, *command, ";", "set", "remain-on-exit", "on")

    # What a person does

    def keys(self, *names: str) -> None:
        """Presses keys by tmux's names for them: `Enter`, `C-c`, `BSpace`."""
        self._tmux("send-keys", *names)

    def type(self, text: str) -> None:
        self._tmux("send-keys", "-l", text)

    def enter(self, line: str) -> None:
        self.type(line)
        self.keys("Enter")

    def paste(self, text: str) -> None:
        """As a terminal does: between brackets, where the program asked for them."""
        self._tmux("load-buffer", "-", stdin=text)
        self._tmux("paste-buffer", "-p")

    def resize(self, columns: int, rows: int) -> None:
        self._tmux("resize-window", "-x", str(columns), "-y", str(rows))

    def kill(self) -> None:
        """Ends the program without a word to it."""
        os.kill(int(self._tmux("list-panes", "-F", "#{pane_pid}")), signal.SIGKILL)
        self.wait_for(lambda _: self.ended)

    def close(self) -> None:
        self._tmux("kill-server")

    # What a person sees

    @property
    def text(self) -> str:
        """All that was shown and not erased, the rows of the window at the end."""
        return self._tmux("capture-pane", "-p", "-S", "-5000")

    @property
    def rows(self) -> list[str]:
        """The rows of the window down to the last one that is not empty."""
        return self._tmux("capture-pane", "-p").rstrip("\n").split("\n")

    @property
    def status(self) -> str:
        return self.rows[-1]

    @property
    def styled(self) -> str:
        """As `text`, with the sequences that set colours."""
        return self._tmux("capture-pane", "-p", "-e", "-S", "-5000")

    @property
    def ended(self) -> bool:
        """Whether the program has ended (tmux does not always notice with which code)."""
        return self._tmux("list-panes", "-F", "#{pane_dead}").strip() == "1"

    def wait_for(self, shown: str | Callable[[str], bool], times: int = 1) -> str:
        """`text` as soon as `shown` holds of it, or stands in it so many times."""
        holds = shown if callable(shown) else lambda text: text.count(shown) >= times
        end_s = time.monotonic() + WAIT_S
        while not holds(text := self.text):
            assert time.monotonic() < end_s, f"waited {WAIT_S} s for {shown!r}:\n{text}"
            time.sleep(LOOK_S)
        return text

    def _tmux(self, *arguments: str, stdin: str = "") -> str:
        command = ["tmux", "-u", "-L", self._socket, "-f", "/dev/null", *arguments]
        done = subprocess.run(command, input=stdin, capture_output=True, text=True, env=self._environment)
        assert done.returncode == 0 or arguments == ("kill-server",), done.stderr
        return done.stdout


class Chat(Terminal):
    """`gemma-mlx chat` with `flags`, ready for the first message."""

    def __init__(
        self,
        *flags: object,
        columns: int = 80,
        rows: int = 24,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__([sys.executable, "-m", "gemma_mlx", "chat", *map(str, flags)], columns, rows, environment)

    def wait_until_ready(self) -> None:
        """Until the model is loaded and no answer is on its way."""
        self.wait_for(lambda _: self.is_ready)

    @property
    def chips(self) -> list[str]:
        """What waits above the input line, with its numbers."""
        return [row for row in self.rows[-12:] if re.match(r"\[\d+\] ", row)]

    @property
    def is_ready(self) -> bool:
        return not self.status.startswith(("loading", "answering", "reading")) and "miniature" in self.status

    def ask(self, message: str, answer: str) -> None:
        """Sends `message`; returns when the model has answered with `answer`."""
        before = self.text.count(answer)
        self.enter(message)
        self.wait_for(lambda text: text.count(answer) > before and self.is_ready)

    def leave(self) -> str:
        """Leaves the chat; what is shown when it has ended."""
        self.enter("/quit")
        text = self.wait_for(lambda _: self.ended)
        assert "Traceback" not in text
        return text
