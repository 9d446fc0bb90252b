"""Records with the microphone of this process and tells what came of it:

    python -m tests.terminal.capture.record SAMPLES.npy [--play]

Writes a line when it hears; ends the recording when a line comes in, if it has not ended by itself. With --play, it
also plays two seconds of numbered samples itself.
"""

from __future__ import annotations

import json
import sys
import threading
import time

import numpy as np

from benchmarks.virtual_microphone import counting
from gemma_mlx.terminal.capture.playback import play, stop_playing
from gemma_mlx.terminal.capture.recorder import Recorder


def main() -> None:
    recorder = Recorder()
    recorder.start()
    while recorder.elapsed_s == 0 and recorder.ended_by is None:
        time.sleep(0.01)
    print("listening", flush=True)
    if "--play" in sys.argv:
        play(counting(32_000))
    threading.Thread(target=lambda: (sys.stdin.readline(), recorder.stop()), daemon=True).start()
    recorder.wait()
    stop_playing()
    np.save(sys.argv[1], recorder.samples)
    print(json.dumps({"ended_by": recorder.ended_by, "problem": recorder.problem, "elapsed_s": recorder.elapsed_s}))


if __name__ == "__main__":
    main()
