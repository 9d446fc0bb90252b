"""Speech found by `gemma_mlx.inputs.pauses` beside other detectors, where it is known who speaks when:

    python -m benchmarks.pauses [--minutes 5]

Needs espeak-ng. Detectors of others take part where they are installed: webrtcvad (webrtcvad-wheels) and silero-vad
(which runs its network with onnxruntime). Each one's answer is brought to hops of 10 ms. For each detector and level of
noise, one line: how much speech was missed, how much of it would not be sent even with the margins of
`gemma_mlx.tasks.windows`, and how much silence was taken for speech, in percent of each; how far the found ends of
utterances are from the true ones, in seconds, of 95 of 100; and how many pauses were not found.
The last line is all of it in JSON.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from functools import partial
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.machine import where_measured
from benchmarks.spoken import Utterance, recording
from gemma_mlx.inputs.pauses import HOP_SAMPLES, HOPS_PER_S, SpeechFinder
from gemma_mlx.inputs.sound_stream import SAMPLE_RATE_HZ
from gemma_mlx.tasks.windows import MARGIN_S

Samples = NDArray[np.float32]
Flags = NDArray[np.bool_]
NOISE_DB: tuple[float | None, ...] = (None, 30, 20, 10, 5)
_BLOCK_SAMPLES = 1 << 14
_MARGIN_HOPS = round(MARGIN_S * HOPS_PER_S)


def ours(samples: Samples) -> Flags:
    finder = SpeechFinder()
    found: list[bool] = []
    for start in range(0, len(samples), _BLOCK_SAMPLES):
        found += finder.push(samples[start : start + _BLOCK_SAMPLES])
    return np.array(found + finder.finish())


def webrtc(samples: Samples, mode: int) -> Flags:
    import webrtcvad

    detector = webrtcvad.Vad(mode)
    whole = samples[: len(samples) // HOP_SAMPLES * HOP_SAMPLES]
    data = (whole * 32767).astype("<i2").reshape(-1, HOP_SAMPLES)
    return np.array([detector.is_speech(hop.tobytes(), SAMPLE_RATE_HZ) for hop in data])


def silero(samples: Samples) -> Flags:
    """The network's probability of each 32 ms, 0.5 or more being speech, as its authors have it."""
    import onnxruntime
    import silero_vad

    network = onnxruntime.InferenceSession(str(Path(silero_vad.__file__).parent / "data" / "silero_vad.onnx"))
    state, context = np.zeros((2, 1, 128), np.float32), np.zeros(64, np.float32)
    found: list[bool] = []
    for start in range(0, len(samples) - 511, 512):
        window = samples[start : start + 512]
        given = {"input": np.concatenate([context, window])[None], "state": state, "sr": np.array(SAMPLE_RATE_HZ)}
        probability, state = network.run(None, given)
        context = window[-64:]
        found.append(float(probability[0, 0]) >= 0.5)
    hops = np.minimum(np.arange(len(samples) // HOP_SAMPLES) * HOP_SAMPLES // 512, len(found) - 1)
    return np.array(found)[hops]


def detectors() -> dict[str, Callable[[Samples], Flags]]:
    """Those that can be run here."""
    found: dict[str, Callable[[Samples], Flags]] = {"ours": ours}
    if find_spec("webrtcvad"):
        found |= {f"webrtcvad {mode}": partial(webrtc, mode=mode) for mode in (1, 2, 3)}
    if find_spec("silero_vad") and find_spec("onnxruntime"):
        found["silero"] = silero
    return found


def figures(flags: Flags, truth: list[Utterance]) -> dict[str, Any]:
    """How near `flags` are to the truth."""
    spoken = np.zeros(len(flags), bool)
    errors_s, missed_pauses = [], 0
    for utterance in truth:
        spoken[round(utterance.start_s * HOPS_PER_S) : round(utterance.end_s * HOPS_PER_S)] = True
    sent = np.convolve(flags, np.ones(2 * _MARGIN_HOPS + 1), mode="same") > 0
    edges = np.flatnonzero(np.diff(np.concatenate([[False], flags, [False]]).astype(np.int8)))
    begins_s, ends_s = edges[::2] / HOPS_PER_S, edges[1::2] / HOPS_PER_S
    for before, after in pairwise(truth):
        quiet = ~flags[round(before.end_s * HOPS_PER_S) : round(after.start_s * HOPS_PER_S)]
        missed_pauses += not quiet.any()
    for utterance in truth:
        if len(edges):
            errors_s.append(float(np.abs(begins_s - utterance.start_s).min()))
            errors_s.append(float(np.abs(ends_s - utterance.end_s).min()))
    return {
        "speech_missed": float((spoken & ~flags).sum() / spoken.sum()),
        "speech_unsent": float((spoken & ~sent).sum() / spoken.sum()),
        "silence_taken": float((~spoken & flags).sum() / (~spoken).sum()),
        "edge_error_95_s": float(np.quantile(errors_s, 0.95)) if errors_s else None,
        "edge_error_max_s": max(errors_s, default=None),
        "pauses": len(truth) - 1,
        "pauses_missed": int(missed_pauses),
    }


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=5)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    points = []
    for noise_db in NOISE_DB:
        pieces = list(recording(arguments.minutes * 60, arguments.seed, noise_db))
        samples = np.concatenate([sound for sound, _ in pieces])
        truth = [utterance for _, utterance in pieces if utterance]
        for name, detect in detectors().items():
            started_s = time.process_time()
            found = detect(samples)
            seconds = time.process_time() - started_s
            point = {"detector": name, "noise_db": noise_db, **figures(found, truth)}
            points.append({**point, "times_real_time": len(samples) / SAMPLE_RATE_HZ / seconds})
            noise = "none" if noise_db is None else f"-{noise_db:.0f} dB"
            edge_s = point["edge_error_95_s"]
            sys.stderr.write(
                f"{name:12} noise {noise:6}  missed {point['speech_missed']:6.1%}  "
                f"unsent {point['speech_unsent']:5.1%}  silence taken {point['silence_taken']:6.1%}  "
                f"edges {'-' if edge_s is None else f'{edge_s:.2f}'} s  "
                f"pauses missed {point['pauses_missed']} of {point['pauses']}\n"
            )
    report = {"benchmark": "pauses", **where_measured(), "seed": arguments.seed, "minutes": arguments.minutes}
    sys.stdout.write(json.dumps({**report, "points": points}) + "\n")


if __name__ == "__main__":
    main()
