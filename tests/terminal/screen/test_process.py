"""The chat as a process: signals, suspending, and what stands on a terminal when it has ended."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.programs import require
from tests.terminal.tmux import ENDLESS, Terminal


@pytest.fixture
def shell(endless_model: Path, own_home: Path) -> Iterator[Terminal]:
    """A shell in which `chat` holds a chat with a model that never ends its turn."""
    require("tmux")
    flags = " ".join(map(str, ENDLESS))
    chat = f'chat() {{ {sys.executable} -m gemma_mlx chat -q -m {endless_model} {flags} "$@"; }}'
    terminal = Terminal(["bash", "--norc", "--noprofile"], environment={"PS1": "sh> "})
    terminal.wait_for("sh>")
    terminal.enter(chat)
    terminal.enter("clear")
    yield terminal
    terminal.close()


def streaming(terminal: Terminal, *flags: str) -> None:
    """Begins a chat and waits until its first answer streams."""
    terminal.enter(" ".join(["chat", *flags]))
    terminal.wait_for(lambda _: "context" in terminal.status)
    terminal.enter("Hello")
    terminal.wait_for(lambda text: len(text.partition("> Hello")[2]) > 300)


def last_row(text: str) -> str:
    return text.rstrip().rpartition("\n")[2]


def process_id(home: Path) -> int:
    found = subprocess.run(
        ["pgrep", "-f", f"gemma_mlx chat -q -m {home.parent}"], capture_output=True, text=True
    ).stdout
    return int(found.split()[0])


def test_suspended_while_it_answers_it_goes_on_where_it_was(shell: Terminal) -> None:
    streaming(shell)
    shell.keys("typed", "C-z")
    shell.wait_for(lambda text: last_row(text) == "sh>")
    shell.keys("echo between", "Enter")
    shell.wait_for(lambda text: "\nbetween\n" in text)
    shell.keys("fg", "Enter")
    shell.wait_for(lambda text: "> typed" in text.rpartition("\nbetween\n")[2] and "answering" in last_row(text))
    shell.keys("C-c")
    shell.wait_for(lambda text: "tokens/s" in last_row(text))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_it_with_the_terminal_as_it_was_and_the_chat_kept(
    shell: Terminal, own_home: Path, number: signal.Signals
) -> None:
    streaming(shell, "--session", "kept")
    os.kill(process_id(own_home), number)
    shell.wait_for(lambda text: last_row(text) == "sh>")
    shell.keys("stty -a", "Enter")
    assert " icanon " in shell.wait_for(lambda text: "echoctl" in text)
    assert '"finish_reason": "interrupted"' in (own_home / "chats" / "kept" / "chat.jsonl").read_text(encoding="utf-8")


def test_leaving_while_it_answers_keeps_what_was_said(shell: Terminal, own_home: Path) -> None:
    streaming(shell, "--session", "kept")
    shell.keys("C-d")
    shell.wait_for(lambda text: last_row(text) == "sh>")
    assert '"finish_reason": "interrupted"' in (own_home / "chats" / "kept" / "chat.jsonl").read_text(encoding="utf-8")
    shell.keys("chat --session kept", "Enter")
    shell.wait_for(lambda text: "context" in last_row(text))
    shell.keys("/stats", "Enter")
    assert "Traceback" not in shell.wait_for(lambda text: "memory" in text)


def test_the_prompt_waits_for_nothing_that_computes() -> None:
    forbidden = ["mlx.core", "numpy", "PIL", "markdown_it", "pygments", "tokenizers", "sounddevice", "av"]
    code = f"import sys, gemma_mlx.terminal.screen.app; print(*(set({forbidden}) & sys.modules.keys()))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True).stdout == b"\n"
