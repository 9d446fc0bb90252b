from __future__ import annotations

import io
import sys

import pytest

from gemma_mlx.terminal.output import Output
from gemma_mlx.terminal.progress import BatchProgress


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def shown(monkeypatch: pytest.MonkeyPatch, stderr: io.StringIO, total: int, quiet: bool = False) -> str:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(sys, "stderr", stderr)
    output = Output(quiet)
    with BatchProgress(output, total) as progress:
        for index in range(total):
            progress.begin(f"picture-{index}\x1b[2J[red].png")
            with progress.hidden():
                output.say("an answer")
            progress.end(worked=index > 0)
    return stderr.getvalue()


def test_a_terminal_shows_the_file_how_many_and_how_fast(monkeypatch: pytest.MonkeyPatch) -> None:
    text = shown(monkeypatch, Terminal(), 3)
    assert "picture-2␛[2J[red].png" in text
    assert "2/3" in text
    assert "images/min" in text
    assert text.count("an answer") == 3


@pytest.mark.parametrize(
    ("stderr", "total", "quiet"), [(io.StringIO(), 3, False), (Terminal(), 3, True), (Terminal(), 1, False)]
)
def test_nothing_is_shown_where_nobody_would_look(
    monkeypatch: pytest.MonkeyPatch, stderr: io.StringIO, total: int, quiet: bool
) -> None:
    assert "picture" not in shown(monkeypatch, stderr, total, quiet)
