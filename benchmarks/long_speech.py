"""Is the transcript of a long recording as good as those of short clips, and can it be killed?

    python -m benchmarks.long_speech OUT --minutes 60

Builds OUT/long.wav of known words, times and pauses (`benchmarks.spoken`; needs espeak-ng), transcribes it with
`gemma-mlx transcribe` in processes of their own, and writes OUT/long-speech.json:

    error rates    of the whole transcript, and of the same utterances each as a clip of its own
    cues           how far each segment's ends are from the first and last sound of what is said in it
    memory         peak resident bytes of the process, beside those for the first minute alone
    kills          the same run, killed (SIGKILL) several times and begun again: the same bytes, nothing heard twice

Exits with 1 where one of these is not as it should be.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

from benchmarks.error_rates import error_rates
from benchmarks.machine import where_measured
from benchmarks.spoken import Utterance, recording
from gemma_mlx.gemma import Gemma
from gemma_mlx.home import HOME_VARIABLE, find_model, miniature_folder
from gemma_mlx.inputs.sound_stream import SAMPLE_RATE_HZ
from gemma_mlx.loader import load
from gemma_mlx.tasks.transcript import PRECISION_S
from gemma_mlx.tasks.transcription import transcribe

MOST_POINTS_ABOVE_CLIPS = 0.02
MOST_MEMORY_RATIO = 1.05
_CLIP_MARGIN_S = 0.2
_POLL_S = 0.05


def build(path: Path, length_s: float, seed: int, noise_db: float) -> list[Utterance]:
    """Writes the recording, piece by piece, and what is said in it beside it; returns that."""
    truth: list[Utterance] = []
    with soundfile.SoundFile(path, "w", SAMPLE_RATE_HZ, 1, "PCM_16") as file:
        for sound, utterance in recording(length_s, seed, noise_db):
            file.write(sound)
            truth += [utterance] if utterance else []
    path.with_suffix(".json").write_text(json.dumps([asdict(utterance) for utterance in truth]), encoding="utf-8")
    return truth


def start(folder: Path, sound: Path, model: Path) -> subprocess.Popen[bytes]:
    """`gemma-mlx transcribe` of `sound` into `folder`, which also is its home."""
    command = [sys.executable, "-m", "gemma_mlx", "transcribe", str(sound), "--format", "json", "-m", str(model)]
    environment = {**os.environ, HOME_VARIABLE: str(folder / "home")}
    return subprocess.Popen(
        [*command, "--draft", "off", "--output-dir", str(folder), "-q"], env=environment, stderr=subprocess.PIPE
    )


def finish(process: subprocess.Popen[bytes]) -> dict[str, Any]:
    """Seconds and peak memory of the process, once it has ended well."""
    started_s = time.perf_counter()
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        sys.exit((process.stderr.read() if process.stderr else b"").decode() or "transcribe failed")
    unit_bytes = 1 if sys.platform == "darwin" else 1024
    return {"seconds": time.perf_counter() - started_s, "peak_bytes": usage.ru_maxrss * unit_bytes}


def killed_runs(folder: Path, sound: Path, model: Path, kills: int, windows: int) -> dict[str, Any]:
    """Kills the run after every part of the `windows`; says whether anything was heard twice or lost."""
    journals = folder / "home" / "transcripts"
    kept: list[str] = []
    nothing_twice = True

    def looked_at(lines: list[str]) -> list[str]:
        nonlocal nothing_twice
        places = [json.loads(line)["place"] for line in lines]
        nothing_twice &= lines[: len(kept)] == kept and len(set(places)) == len(places)
        return lines

    for number in range(1, kills + 1):
        process = start(folder, sound, model)
        while len(_whole_lines(journals)) < windows * number // (kills + 1) and process.poll() is None:
            time.sleep(_POLL_S)
        process.send_signal(signal.SIGKILL)
        process.wait()
        kept = looked_at(_whole_lines(journals))
    last = folder / "last"
    shutil.rmtree(last, ignore_errors=True)
    last.mkdir()
    for journal in journals.glob("*.jsonl"):
        (last / journal.name).hardlink_to(journal)  # the run takes its own name of it away when it is done
    finish(start(folder, sound, model))
    looked_at(_whole_lines(last))
    return {"kills": kills, "kept_before_the_last_run": len(kept), "nothing_twice": nothing_twice}


def _whole_lines(journals: Path) -> list[str]:
    found = [path.read_text(encoding="utf-8") for path in journals.glob("*.jsonl")] if journals.exists() else []
    return [line for text in found for line in text.splitlines(keepends=True) if line.endswith("\n")]


def cue_errors(segments: list[dict[str, Any]], truth: list[Utterance]) -> list[float]:
    """How far the beginning and the end of each segment are from those of what is said in it, in seconds.

    An utterance belongs to the segment that its middle lies in; a segment without one is as wrong as it is long.
    """
    errors = []
    middles = np.array([(utterance.start_s + utterance.end_s) / 2 for utterance in truth])
    for segment in segments:
        inside = np.flatnonzero((middles >= segment["start_s"]) & (middles <= segment["end_s"]))
        if len(inside):
            errors.append(abs(segment["start_s"] - truth[int(inside[0])].start_s))
            errors.append(abs(segment["end_s"] - truth[int(inside[-1])].end_s))
        else:
            errors.append(segment["end_s"] - segment["start_s"])
    return errors


def clip_pairs(gemma: Gemma, sound: Path, truth: list[Utterance]) -> list[tuple[str, str]]:
    """(said, found) of each utterance as a clip of its own."""
    pairs = []
    for utterance in truth:
        first = max(0, int((utterance.start_s - _CLIP_MARGIN_S) * SAMPLE_RATE_HZ))
        last = int((utterance.end_s + _CLIP_MARGIN_S) * SAMPLE_RATE_HZ)
        samples, _ = soundfile.read(sound, start=first, stop=last, dtype="float32")
        reply = transcribe(gemma, _media(gemma, samples), draft="off", max_tokens=64)
        pairs.append((utterance.words, " ".join(reply.text.split())))
    return pairs


def _media(gemma: Gemma, samples: Any) -> Any:
    return gemma.prompts.prepare({"type": "audio", "audio": (samples, SAMPLE_RATE_HZ)})


def measure(
    folder: Path, minutes: float, seed: int, noise_db: float, kills: int, clips: int, model: Path
) -> dict[str, Any]:
    """All of it; see the top of the file."""
    long, minute = folder / "long.wav", folder / "minute.wav"
    truth = build(long, minutes * 60, seed, noise_db)
    build(minute, 60, seed, noise_db)
    short_run = finish(start(folder / "first", minute, model))
    long_run = finish(start(folder / "whole", long, model))
    document = json.loads((folder / "whole" / "long.json").read_text(encoding="utf-8"))
    segments = document["segments"]
    killed = killed_runs(folder / "killed", long, model, kills, len(segments))
    whole_bytes, killed_bytes = ((folder / name / "long.json").read_bytes() for name in ("whole", "killed"))
    said = " ".join(utterance.words for utterance in truth)
    found = " ".join(" ".join(segment["text"].split()) for segment in segments)
    step = max(1, len(truth) // clips)
    clip_rates = error_rates(clip_pairs(load(model, draft="off"), long, truth[::step]))
    errors_s = cue_errors(segments, truth)
    times = [time_s for segment in segments for time_s in (segment["start_s"], segment["end_s"])]
    return {
        "benchmark": "long-speech",
        **where_measured(),
        "model": document["model"],
        "minutes": minutes,
        "seed": seed,
        "noise_db": noise_db,
        "utterances": len(truth),
        "segments": len(segments),
        "doubted": sum(bool(segment["doubts"]) for segment in segments),
        "words": len(said.split()),
        "word_error_rate": error_rates([(said, found)]).word_error_rate,
        "clips": clip_rates.texts,
        "clip_word_error_rate": clip_rates.word_error_rate,
        "cue_error_max_s": max(errors_s),
        "cue_error_median_s": float(np.median(errors_s)),
        "monotonic": times == sorted(times),
        "seconds": long_run["seconds"],
        "times_real_time": minutes * 60 / long_run["seconds"],
        "peak_bytes": long_run["peak_bytes"],
        "peak_bytes_of_one_minute": short_run["peak_bytes"],
        **killed,
        "same_bytes_after_kills": whole_bytes == killed_bytes,
    }


def shortcomings(report: dict[str, Any]) -> list[str]:
    """What is not as it should be."""
    ratio = report["peak_bytes"] / report["peak_bytes_of_one_minute"]
    checks = {
        "more words are wrong than in clips": report["word_error_rate"]
        <= report["clip_word_error_rate"] + MOST_POINTS_ABOVE_CLIPS,
        f"a cue is more than {PRECISION_S} s off": report["cue_error_max_s"] <= PRECISION_S,
        "cues overlap": report["monotonic"],
        f"peak memory is {ratio:.3f} times that of a minute": ratio <= MOST_MEMORY_RATIO,
        "after kills the transcript is another": report["same_bytes_after_kills"],
        "something was heard twice": report["nothing_twice"],
    }
    return [what for what, holds in checks.items() if not holds]


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--noise-db", type=float, default=30, help="how far the noise is under the speech")
    parser.add_argument("--kills", type=int, default=5)
    parser.add_argument("--clips", type=int, default=200, help="utterances to hear as clips of their own")
    parser.add_argument("--model", type=Path, default=miniature_folder())
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    report = measure(
        arguments.out, arguments.minutes, arguments.seed, arguments.noise_db, arguments.kills, arguments.clips,
        find_model(arguments.model),
    )  # fmt: skip
    (arguments.out / "long-speech.json").write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    sys.stdout.write(json.dumps(report) + "\n")
    if found := shortcomings(report):
        sys.exit("not as it should be: " + "; ".join(found))


if __name__ == "__main__":
    main()
