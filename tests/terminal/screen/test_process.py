"""The chat as a process: what ends it, and what its start waits for."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.terminal.kept import KeptFiles
from tests.terminal.tmux import CHAT, TMUX, Terminal


@pytest.fixture
def shell() -> Iterator[Terminal]:
    """An interactive shell."""
    if TMUX is None:
        pytest.skip("needs tmux")
    terminal = Terminal(["bash", "--norc", "--noprofile"], environment={"PS1": "sh> "})
    terminal.wait_for("sh>")
    yield terminal
    terminal.close()


def stream(shell: Terminal, model: Path, id_file: Path) -> int:
    """Begins a chat, waits until its first answer streams, and gives its process."""
    command = shlex.join([*CHAT, "-m", str(model), "-n", "4000", "-t", "20", "--top-k", "0", "--top-p", "1"])
    shell.enter(f"clear; bash -c 'echo $$ > {id_file}; exec {command}'")
    shell.wait_for(lambda _: shell.status.startswith("changed"))
    shell.enter("Hello")
    shell.wait_for(lambda text: len(text.partition("> Hello")[2].strip()) > 300)
    return int(id_file.read_text(encoding="utf-8"))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_it_with_the_terminal_as_it_was_and_the_chat_kept(
    shell: Terminal, endless_model: Path, own_home: Path, tmp_path: Path, number: signal.Signals
) -> None:
    os.kill(stream(shell, endless_model, tmp_path / "id"), number)
    shell.wait_for(lambda _: shell.status == "sh>")
    shell.enter("stty -a")
    assert " icanon " in shell.wait_for("echoctl")
    assert [turn["figures"]["finish_reason"] for turn in KeptFiles(own_home).answered] == ["interrupted"]


def test_leaving_stops_the_answer_and_keeps_what_was_said(
    shell: Terminal, endless_model: Path, own_home: Path, tmp_path: Path
) -> None:
    stream(shell, endless_model, tmp_path / "id")
    shell.keys("C-d")
    shell.wait_for(lambda _: shell.status == "sh>")
    assert [turn["figures"]["finish_reason"] for turn in KeptFiles(own_home).answered] == ["interrupted"]


def test_the_prompt_waits_for_nothing_that_computes() -> None:
    forbidden = ["mlx.core", "numpy", "PIL", "markdown_it", "pygments", "tokenizers", "sounddevice", "av"]
    code = f"import sys, gemma_mlx.terminal.screen.app; print(*(set({forbidden}) & sys.modules.keys()))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True).stdout == b"\n"
