"""Recording at real cadence, through sounddevice and PortAudio, from a sound server of the test's own."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from benchmarks.child import child_environment
from benchmarks.microphone import measure
from benchmarks.microphone_point import continuity
from benchmarks.virtual_microphone import VirtualMicrophone, counting
from gemma_mlx.home import miniature_folder, samples_folder
from gemma_mlx.inputs.sound_stream import SAMPLE_RATE_HZ
from gemma_mlx.inputs.waveform import read_waveform
from gemma_mlx.loader import load
from gemma_mlx.tasks.dictation import dictate
from tests.programs import VIRTUAL_MICROPHONE, require


@pytest.fixture(autouse=True, scope="module")
def _programs() -> None:
    require(*VIRTUAL_MICROPHONE)


@dataclass(frozen=True)
class Recorded:
    """What a `Recorder` told, and heard."""

    told: dict[str, Any]
    samples: NDArray[np.float32]


class Child:
    """A process that records, hearing already."""

    def __init__(self, microphone: VirtualMicrophone, file: Path, *options: str) -> None:
        self._file = file
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.terminal.capture.record", str(file), *options],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=child_environment(microphone.environment),
            text=True,
        )
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == "listening\n"

    def end(self, key: bool) -> Recorded:
        """Waits for the recording to end, by a key or by itself."""
        try:
            if key:
                out, errors = self._process.communicate("\n", timeout=30)
            else:
                self._process.wait(timeout=30)
                out, errors = self._process.communicate()
        finally:
            self._process.kill()
        assert self._process.returncode == 0, errors
        return Recorded(json.loads(out), np.load(self._file))


@pytest.fixture
def microphone() -> Iterator[VirtualMicrophone]:
    with VirtualMicrophone() as started:
        yield started


def test_no_block_is_lost_and_no_callback_is_slower_than_its_block() -> None:
    found = measure(3.0, busy=False)
    assert found["numbered_samples"] >= 2.9 * SAMPLE_RATE_HZ
    assert {found[f"{kind}_samples"] for kind in ("lost", "repeated", "silent", "changed")} == {0}
    assert found["overflows"] == 0
    assert found["callback_max_ms"] < found["block_ms"]
    assert found["callback_cpu_max_ms"] < found["block_ms"] / 20


@pytest.mark.parametrize("how", ["unplug", "kill"])
def test_a_microphone_that_goes_away_is_one_line_and_what_was_heard_is_kept(
    microphone: VirtualMicrophone, tmp_path: Path, how: str
) -> None:
    player = microphone.play(counting(20 * SAMPLE_RATE_HZ))
    child = Child(microphone, tmp_path / "heard.npy")
    time.sleep(1.5)
    getattr(microphone, how)()
    recorded = child.end(key=False)
    player.kill()
    player.wait()
    assert recorded.told["ended_by"] == "unplugged"
    told = re.fullmatch(r"the microphone went away after (\d\.\d) s; what was heard is kept", recorded.told["problem"])
    assert told is not None
    assert abs(float(told[1]) - len(recorded.samples) / SAMPLE_RATE_HZ) < 0.06
    heard = continuity(recorded.samples)
    assert heard["numbered_samples"] > SAMPLE_RATE_HZ
    assert (heard["lost_samples"], heard["changed_samples"]) == (0, 0)


def test_speech_is_heard_to_its_end_and_written_down(microphone: VirtualMicrophone, tmp_path: Path) -> None:
    child = Child(microphone, tmp_path / "heard.npy")
    silence = np.zeros(SAMPLE_RATE_HZ // 2, np.float32)
    player = microphone.play(np.concatenate([silence, read_waveform(samples_folder() / "speech.wav"), silence]))
    recorded = child.end(key=False)
    player.wait()
    assert (recorded.told["ended_by"], recorded.told["problem"]) == ("silence", None)
    listed = json.loads((samples_folder() / "samples.json").read_text(encoding="utf-8"))["samples"]
    [expected] = [row["expected"] for row in listed if row["file"] == "speech.wav"]
    assert dictate(load(miniature_folder()), recorded.samples) == expected


def test_a_recording_can_be_played_back(microphone: VirtualMicrophone, tmp_path: Path) -> None:
    child = Child(microphone, tmp_path / "heard.npy", "--play")
    time.sleep(2.5)
    recorded = child.end(key=True)
    assert (recorded.told["ended_by"], recorded.told["problem"]) == ("key", None)
    heard = continuity(recorded.samples)
    assert heard["numbered_samples"] > SAMPLE_RATE_HZ  # a busy machine plays with gaps
    assert heard["changed_samples"] == 0
