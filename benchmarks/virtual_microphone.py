"""A sound server of its own, with a microphone that hears exactly what is played into it and can be unplugged.

PulseAudio's null sink takes what `paplay` plays at the pace of a real device, and its monitor is the microphone:

    paplay -> sink "voice" (16 kHz, mono, float32) -> "voice.monitor" -> ALSA's pulse plugin -> PortAudio -> sounddevice

Nothing on that way resamples, so that samples can be told apart one by one.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import time
from pathlib import Path
from types import TracebackType

import numpy as np
import soundfile
from numpy.typing import NDArray

from gemma_mlx.errors import GemmaError
from gemma_mlx.inputs.sound_stream import SAMPLE_RATE_HZ

PROGRAMS = ("pulseaudio", "pactl", "paplay")
_START_S = 10.0
_COUNTED = 1 << 24  # the whole numbers up to this are exact in float32


class VirtualMicrophone:
    """Runs from `with` to its end. It is what a process with `environment` hears and plays to when it chooses nothing.

    GemmaError where a program is missing or the server does not start.
    """

    def __enter__(self) -> VirtualMicrophone:
        if missing := [name for name in PROGRAMS if shutil.which(name) is None]:
            raise GemmaError(f"{missing[0]} is not installed; a virtual microphone needs {', '.join(PROGRAMS)}")
        self._folder = Path(tempfile.mkdtemp(prefix="sound-"))  # short, for the name of a socket may not be long
        socket = self._folder / "pulse" / "native"
        own = {"HOME": self._folder, "XDG_RUNTIME_DIR": self._folder, "PULSE_RUNTIME_PATH": socket.parent}
        (self._folder / ".asoundrc").write_text("pcm.!default { type pulse }\nctl.!default { type pulse }\n", "utf-8")
        self.environment = {**os.environ, **{name: str(path) for name, path in own.items()}}
        self._server = subprocess.Popen(
            ["pulseaudio", "-n", "--daemonize=no", "--system=false", "--use-pid-file=no", "--exit-idle-time=-1",
             "-L", "module-native-protocol-unix",
             "-L", f"module-null-sink sink_name=voice rate={SAMPLE_RATE_HZ} channels=1 format=float32le"],
            env=self.environment,
            stderr=subprocess.DEVNULL,
        )  # fmt: skip
        self.environment["PULSE_SERVER"] = f"unix:{socket}"
        try:
            self._wait_until_it_answers()
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.kill()
        shutil.rmtree(self._folder, ignore_errors=True)

    def play(self, samples: NDArray[np.float32]) -> subprocess.Popen[bytes]:
        """Begins to play [n] samples into the microphone; the process ends when they have been played."""
        path = self._folder / "played.wav"
        soundfile.write(path, samples, SAMPLE_RATE_HZ, subtype="FLOAT")
        return subprocess.Popen(["paplay", str(path)], env=self.environment, stderr=subprocess.DEVNULL)

    def unplug(self) -> None:
        """The microphone goes away, while the server stays."""
        modules = self._pactl("list", "short", "modules").stdout.splitlines()
        [number] = [line.split()[0] for line in modules if b"module-null-sink" in line]
        self._pactl("unload-module", number.decode())

    def kill(self) -> None:
        """The server goes away, without a word to who listens."""
        self._server.kill()
        self._server.wait()

    def _wait_until_it_answers(self) -> None:
        end_s = time.monotonic() + _START_S
        while self._pactl("info").returncode:
            if self._server.poll() is not None or time.monotonic() > end_s:
                raise GemmaError("PulseAudio does not start; run pulseaudio -n -vv to see why")
            time.sleep(0.05)

    def _pactl(self, *arguments: str) -> subprocess.CompletedProcess[bytes]:
        return subprocess.run(["pactl", *arguments], env=self.environment, capture_output=True, check=False)


def counting(count: int) -> NDArray[np.float32]:
    """`count` samples (at most 17 minutes) that tell their own number, from 1 on, and are not loud."""
    return (np.arange(1, count + 1) / _COUNTED).astype(np.float32)


def numbers(samples: NDArray[np.float32]) -> NDArray[np.int64]:
    """The numbers of samples of `counting`; 0 where nothing was played, -1 for what is no such sample."""
    counted = samples.astype(np.float64) * _COUNTED
    whole = np.rint(counted)
    return np.where((counted == whole) & (whole >= 0), whole, -1).astype(np.int64)
