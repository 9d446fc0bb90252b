"""Programs and libraries of the system that some tests drive for real, beyond what the README's commands install."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from ctypes.util import find_library
from pathlib import Path

import pytest

from benchmarks.virtual_microphone import PROGRAMS

ALL_INSTALLED = "GEMMA_MLX_TESTS_HAVE_PROGRAMS"
"""Set by `.ci/run` once `.ci/tools` has installed them all: from then on a test that lacks one fails."""

_LIBRARIES: dict[str, Callable[[], bool]] = {
    "libportaudio2": lambda: find_library("portaudio") is not None,
    "libasound2-plugins": lambda: any(Path("/usr/lib").glob("*/alsa-lib/libasound_module_pcm_pulse.so")),
}
VIRTUAL_MICROPHONE = (*PROGRAMS, *_LIBRARIES)


def require(*names: str) -> None:
    """Passes over the test where the machine lacks one of them, with what would have it run; see `ALL_INSTALLED`."""
    missing = [name for name in names if not _LIBRARIES.get(name, lambda name=name: shutil.which(name) is not None)()]
    if not missing:
        return
    lacks = f"not installed: {', '.join(missing)}, which this test drives; on Debian sh .ci/tools installs all of them"
    if os.environ.get(ALL_INSTALLED):
        pytest.fail(lacks)
    pytest.skip(lacks)
