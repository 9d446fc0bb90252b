"""What only a process of its own can show: start-up, pipes, signals."""

from __future__ import annotations

import errno
import os
import resource
import shlex
import signal
import subprocess
import sys
import warnings
from pathlib import Path

import pytest

from gemma_mlx import load
from gemma_mlx.home import miniature_folder
from tests.terminal.conftest import ChangedModel

COMMAND = [sys.executable, "-m", "gemma_mlx"]


def test_help_starts_without_the_heavy_parts() -> None:
    heavy = "mlx numpy PIL rich prompt_toolkit tokenizers jinja2 soundfile transformers torch mlx_lm"
    code = (
        "import sys; from gemma_mlx.terminal.cli import app; app(['--help'], standalone_mode=False); "
        f"print([m for m in '{heavy}'.split() if m in sys.modules], file=sys.stderr)"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ended.stderr.strip() == "[]"
    assert "transcribe" in ended.stdout


def test_help_takes_little_processor_time() -> None:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([*COMMAND, "--help"], capture_output=True, check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 0.8


def test_the_run_path_imports_neither_transformers_nor_mlx_lm(media: Path) -> None:
    code = (
        "import sys\nfrom gemma_mlx.terminal.cli import main\n"
        f"sys.argv = ['gemma-mlx', 'ask', 'What?', '--image', {str(media / 'picture.png')!r}, '--audio', "
        f"{str(media / 'tone.wav')!r}, '-n', '1']\n"
        "try: main()\nexcept SystemExit as end: assert not end.code\n"
        "assert 'mlx.core' in sys.modules\n"
        "assert not {'transformers', 'torch', 'mlx_lm', 'mlx_vlm'} & set(sys.modules)"
    )
    ended = subprocess.run([sys.executable, "-c", code], stdin=subprocess.DEVNULL, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr


def test_a_reader_that_goes_away_ends_the_answer_quietly(endless_model: Path) -> None:
    with _endless(endless_model) as asking:
        assert asking.stdout is not None
        assert asking.stderr is not None
        asking.stdout.read(10)
        asking.stdout.close()
        told = asking.stderr.read().decode()
        assert asking.wait(120) == 0
    assert "Traceback" not in told
    assert "error" not in told


def test_ctrl_c_keeps_the_partial_answer_and_exits_with_130(endless_model: Path) -> None:
    with _endless(endless_model) as asking:
        assert asking.stdout is not None
        assert asking.stderr is not None
        begun = asking.stdout.read(10)
        asking.send_signal(signal.SIGINT)
        rest, told = asking.communicate(timeout=120)
    assert asking.returncode == 130
    assert (begun + rest).endswith(b"\n")
    assert b"Traceback" not in told
    assert b"error" not in told


def test_ctrl_c_during_an_answer_keeps_what_was_read(endless_model: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    with _endless(endless_model, "--cache", str(cache)) as asking:
        assert asking.stdout is not None
        asking.stdout.read(10)
        asking.send_signal(signal.SIGINT)
        asking.communicate(timeout=120)
    assert asking.returncode == 130
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert load(endless_model).resume_session(cache).offset > 10


def _endless(model: Path, *more: str) -> subprocess.Popen[bytes]:
    arguments = ["ask", "Hello", "-m", str(model), "-n", "100000", "-t", "20", "--top-p", "1", "--top-k", "0"]
    return subprocess.Popen(
        [*COMMAND, *arguments, *more],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        bufsize=0,
    )


FULL = ["limit", *(["/dev/full"] if Path("/dev/full").exists() else [])]
"""What cannot be written to: a file that may not grow, anywhere, and the device that Linux has for it."""


def to_a_full_disk(kind: str, tmp_path: Path, *arguments: str) -> tuple[int, str, str]:
    """A command with nowhere to write to: its exit code, stderr, and what the system calls the reason."""

    def forbid_growing() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))

    path, limit = (tmp_path / "full", forbid_growing) if kind == "limit" else (Path(kind), None)
    with path.open("wb") as full:
        ended = subprocess.run([*COMMAND, *arguments], stdout=full, stderr=subprocess.PIPE, text=True, preexec_fn=limit)
    return ended.returncode, ended.stderr, os.strerror(errno.EFBIG if kind == "limit" else errno.ENOSPC)


@pytest.mark.parametrize("module", ["gemma_mlx.terminal.cli", "typer"])
def test_ctrl_c_while_the_program_loads_is_quiet(module: str) -> None:
    interrupting = f"""
import sys
class Interrupting:
    def find_spec(self, name, path=None, target=None):
        if name == {module!r}:
            raise KeyboardInterrupt
sys.meta_path.insert(0, Interrupting())
from gemma_mlx.__main__ import main
main()
"""
    ended = subprocess.run([sys.executable, "-c", interrupting], capture_output=True, text=True)
    assert (ended.returncode, ended.stdout, ended.stderr) == (130, "", "")


@pytest.mark.parametrize("kind", FULL)
def test_a_full_disk_is_one_line(kind: str, tmp_path: Path) -> None:
    code, told, reason = to_a_full_disk(kind, tmp_path, "--version")
    assert (code, told.count("\n")) == (1, 1)
    assert f"cannot write the answer to stdout: {reason}" in told


@pytest.mark.parametrize("kind", FULL)
@pytest.mark.parametrize("arguments", [["--help"], ["ask", "--help"]])
def test_help_to_a_full_disk_is_one_line(kind: str, arguments: list[str], tmp_path: Path) -> None:
    code, told, _ = to_a_full_disk(kind, tmp_path, *arguments)
    assert (code, told.count("\n")) == (1, 1)


@pytest.mark.parametrize("arguments", [["--help"], ["ask", "--help"]])
def test_help_to_nobody_is_quiet(arguments: list[str]) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    ended = subprocess.run([*COMMAND, *arguments], stdout=writer, stderr=subprocess.PIPE, text=True)
    os.close(writer)
    assert (ended.returncode, ended.stderr) == (0, "")


def test_a_question_is_answered_without_stdin() -> None:
    command = " ".join([*COMMAND, "ask", "Hello", "-n", "2", "-m", shlex.quote(str(miniature_folder())), "<&-"])
    ended = subprocess.run(["/bin/sh", "-c", command], capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.strip()


def test_a_closed_stdout_is_one_line() -> None:
    command = " ".join([*COMMAND, "--version", ">&-"])
    ended = subprocess.run(["/bin/sh", "-c", command], capture_output=True, text=True)
    assert ended.returncode == 1
    assert ended.stderr.startswith("error: stdout is closed")


def test_answers_are_utf8_in_any_locale(changed_model: ChangedModel) -> None:
    environment = {**os.environ, "LC_ALL": "C", "PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"}
    code = (
        "from gemma_mlx.terminal.output import Output, use_utf8\nuse_utf8()\nshown = Output()\n"
        "shown.answer('Gr\\u00fc\\u00dfe')\nshown.end_answer()"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, env=environment)
    assert ended.stdout.decode("utf-8") == "Grüße\n", ended.stderr


def test_an_interrupt_is_only_noted_until_the_second_one() -> None:
    from gemma_mlx.terminal.failures import Interrupt

    before = signal.getsignal(signal.SIGINT)
    with Interrupt() as interrupt:
        signal.raise_signal(signal.SIGINT)
        assert interrupt.asked
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is before
