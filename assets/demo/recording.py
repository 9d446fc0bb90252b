"""A program in a terminal of its own, driven by keys, with all that it wrote and when: an asciinema recording (v2)."""

from __future__ import annotations

import codecs
import fcntl
import json
import os
import pty
import select
import signal
import struct
import termios
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pyte

KEY_S = 0.06
"""Between two keys, as somebody types who knows what to say."""

PATIENCE_S = 5


class Recording:
    """Runs `command` in a terminal of `columns` x `rows`. Keys go in; what comes out is kept, and drawn on `screen`."""

    def __init__(self, command: Sequence[str], columns: int, rows: int, environment: dict[str, str]) -> None:
        self.columns, self.rows = columns, rows
        self.screen = pyte.Screen(columns, rows)
        self.events: list[tuple[float, str]] = []
        """Seconds since the start, and what the program wrote then."""
        self._stream = pyte.Stream(self.screen)
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._began_s = time.monotonic()
        self.screen.write_process_input = self.press  # where the cursor is, when the program asks
        self._child, self._terminal = pty.fork()
        if self._child == 0:
            os.execvpe(command[0], list(command), environment)
        fcntl.ioctl(self._terminal, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def type(self, text: str) -> None:
        """Types `text` key by key; what the program makes of it is recorded meanwhile."""
        for key in text:
            os.write(self._terminal, key.encode())
            self.wait(KEY_S)

    def press(self, keys: str) -> None:
        """Sends `keys` at once, as for Enter, an arrow or what a drag drops in."""
        os.write(self._terminal, keys.encode())

    def wait(self, seconds: float) -> None:
        """Records for so long."""
        end_s = time.monotonic() + seconds
        while (left_s := end_s - time.monotonic()) > 0:
            self._read(left_s)

    def wait_for(self, shown: str | Callable[[str], bool], limit_s: float = 60) -> None:
        """Records until the screen shows it. TimeoutError, with the screen, where it does not."""
        holds = (lambda text: shown in text) if isinstance(shown, str) else shown
        end_s = time.monotonic() + limit_s
        while not holds(self.text()):
            if time.monotonic() > end_s or not self._read(0.1):
                raise TimeoutError(f"{shown!r} is not on the screen:\n{self.text()}")

    def text(self) -> str:
        """What the screen shows now."""
        return "\n".join(line.rstrip() for line in self.screen.display).rstrip()

    def close(self) -> None:
        """Ends the program: politely, and where it does not mind a terminal that is gone, at once."""
        os.kill(self._child, signal.SIGHUP)
        end_s = time.monotonic() + PATIENCE_S
        while os.waitpid(self._child, os.WNOHANG) == (0, 0):
            if time.monotonic() > end_s:
                os.kill(self._child, signal.SIGKILL)
            self._read(0.05)
        os.close(self._terminal)

    def write(self, path: Path, title: str) -> None:
        """Writes the recording as asciinema reads it."""
        header = {"version": 2, "width": self.columns, "height": self.rows, "title": title}
        lines = [json.dumps(header), *(json.dumps([round(at_s, 3), "o", data]) for at_s, data in self.events)]
        path.write_text("\n".join(lines) + "\n", encoding="utf-8")

    def _read(self, wait_s: float) -> bool:
        """Takes what was written within `wait_s`; False where the program has ended."""
        ready, _, _ = select.select([self._terminal], [], [], min(wait_s, 0.1))
        if not ready:
            return True
        try:
            found = os.read(self._terminal, 65536)
        except OSError:  # Linux's word for the end
            return False
        if text := self._decoder.decode(found):
            self.events.append((time.monotonic() - self._began_s, text))
            self._stream.feed(text)
        return bool(found)
