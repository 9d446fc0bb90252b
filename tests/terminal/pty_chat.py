"""`gemma-mlx chat` as a process on a terminal of its own: keys and signals go in, all that it sends comes out."""

from __future__ import annotations

import codecs
import fcntl
import os
import pty
import select
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

import pyte

WAIT_S = 60
COMMAND = [sys.executable, "-m", "gemma_mlx", "chat"]


class PtyChat:
    """Entered, it runs; left, it is killed where it has not ended. Its terminal outlives it, to be looked at."""

    def __init__(
        self,
        *flags: object,
        home: Path,
        columns: int = 100,
        rows: int = 30,
        environment: Mapping[str, str] | None = None,
        command: list[str] | None = None,
        before: Callable[[], None] = lambda: None,
    ) -> None:
        """`before` runs in the new process, ahead of the command."""
        self.screen = pyte.Screen(columns, rows)
        self._stream = pyte.Stream(self.screen)
        self._decoder = codecs.getincrementaldecoder("utf-8")("surrogateescape")
        self.sent = ""
        """Every character that went to the terminal."""
        self.master, self._terminal = pty.openpty()
        fcntl.ioctl(self._terminal, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
        self.modes = termios.tcgetattr(self._terminal)
        """Those of the terminal before the chat."""

        def begin() -> None:
            fcntl.ioctl(0, termios.TIOCSCTTY, 0)
            before()

        self.process = subprocess.Popen(
            [*(command or COMMAND), *map(str, flags)],
            stdin=self._terminal,
            stdout=self._terminal,
            stderr=self._terminal,
            env={**os.environ, "TERM": "xterm-256color", "GEMMA_MLX_HOME": str(home), **(environment or {})},
            start_new_session=True,
            preexec_fn=begin,
        )

    def __enter__(self) -> PtyChat:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        self.close_terminal()

    def close_terminal(self) -> None:
        """As when its window is closed: whoever is on it gets SIGHUP."""
        for descriptor in (self.master, self._terminal):
            if descriptor >= 0:
                os.close(descriptor)
        self.master = self._terminal = -1

    def type(self, keys: str) -> None:
        os.write(self.master, keys.encode("utf-8", "surrogateescape"))

    def see(self, wanted: str | Callable[[str], bool]) -> str:
        """The screen, as soon as `wanted` is on it."""
        shown = wanted if callable(wanted) else lambda text: wanted in text
        end_s = time.monotonic() + WAIT_S
        while not shown(self.text):
            assert time.monotonic() < end_s, self.text
            assert self.process.poll() is None or self._read(0), (
                f"it ended with {self.process.returncode}:\n{self.text}"
            )
            self._read(0.1)
        return self.text

    def end(self) -> int:
        """Its exit code, negative for a signal, once it has ended; by then all that it sent has been read."""
        end_s = time.monotonic() + WAIT_S
        while self.process.poll() is None:
            assert time.monotonic() < end_s, self.text
            self._read(0.1)
        while self._read(0):
            pass
        return self.process.returncode

    @property
    def text(self) -> str:
        return "\n".join(line.rstrip() for line in self.screen.display).rstrip()

    @property
    def modes_now(self) -> list[Any]:
        return termios.tcgetattr(self._terminal)

    def _read(self, wait_s: float) -> bool:
        if self.master < 0:
            time.sleep(wait_s)
            return False
        ready, _, _ = select.select([self.master], [], [], wait_s)
        if not ready:
            return False
        text = self._decoder.decode(os.read(self.master, 1 << 16))
        self.sent += text
        self._stream.feed(text)
        return True
