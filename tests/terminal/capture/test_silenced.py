"""Libraries that write to the process's stderr."""

from __future__ import annotations

import os

import pytest

from gemma_mlx.terminal.capture.silenced import libraries_silenced


def test_what_a_library_writes_meanwhile_goes_nowhere(capfd: pytest.CaptureFixture[str]) -> None:
    os.write(2, b"before ")
    with libraries_silenced():
        os.write(2, b"ALSA lib pcm.c: Unknown PCM")
    os.write(2, b"after")
    assert capfd.readouterr().err == "before after"


def test_an_error_inside_gives_stderr_back(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(OSError, match="gone"), libraries_silenced():
        raise OSError("gone")
    os.write(2, b"told")
    assert capfd.readouterr().err == "told"
