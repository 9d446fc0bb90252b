"""What stands above the input line: finished lines, written once and never touched again, and below them a live area.

finished lines ...                       in the terminal's own scrollback
the unfinished end of the answer         drawn again whenever it changes
[1 scene.png 320x240 -> 63 tokens]       chips
> the line being typed
miniature · context 32 of 8,192          the status line
"""

from __future__ import annotations

import errno

from prompt_toolkit.application import Application
from prompt_toolkit.output import Output

SYNCHRONIZED = ("\x1b[?2026h", "\x1b[?2026l")
"""Terminals that know it show what stands between at once; the others pass over it."""


class Printer:
    """Writes lines above a running application. All of it happens on the application's own loop."""

    def __init__(self, application: Application[str]) -> None:
        self._application = application
        self._held = ""

    @property
    def columns(self) -> int:
        return self._output.get_size().columns

    @property
    def rows(self) -> int:
        return self._output.get_size().rows

    def print(self, text: str) -> None:
        """Writes whole lines, which hold nothing that a terminal obeys but styles of ours."""
        if not text:
            return
        application, output = self._application, self._output
        if not application.is_running:
            self._held += text
            return
        text, self._held = self._held + text, ""
        try:
            output.write_raw(SYNCHRONIZED[0])
            application.renderer.erase(leave_alternate_screen=False)
            output.write_raw(text.replace("\n", "\r\n"))
            application.renderer.render(application, application.layout)
            output.write_raw(SYNCHRONIZED[1])
            output.flush()
        except OSError as error:
            if error.errno != errno.EIO:  # the terminal is gone: the application ends, and the answer is to be kept
                raise

    def flush(self) -> None:
        """Writes what came before the application ran or after it ended."""
        held, self._held = self._held, ""
        if held:
            self._output.write_raw(held.replace("\n", "\r\n"))
            self._output.flush()

    @property
    def _output(self) -> Output:
        return self._application.output
