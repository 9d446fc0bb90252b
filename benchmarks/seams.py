"""Where speech is cut without a pause, both sides hear a little of the other: what is said twice or lost at the seam?

    python -m benchmarks.seams --minutes 2 >seams.json

Two measurements, each with the seams as they are joined and with nothing joined:

    planted   a text cut in two that have 2 to 6 words in common; each side hears some otherwise, and often half a word
              at its edge: words said twice and words lost for 1,000 seams, in prose, in digits, and in phrases that
              somebody repeats
    spoken    digits read without pauses by espeak-ng (`benchmarks.spoken`), cut and transcribed: words wrong

Prints a table on stderr and a line of JSON.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.error_rates import error_rates
from benchmarks.machine import where_measured
from benchmarks.spoken import recording
from gemma_mlx.gemma import Gemma
from gemma_mlx.home import miniature_folder
from gemma_mlx.loader import load
from gemma_mlx.tasks.listening import Heard, Listener
from gemma_mlx.tasks.seams import without_overlap
from gemma_mlx.tasks.transcript import segments
from gemma_mlx.tasks.transcription import Wanted
from gemma_mlx.tasks.windows import Window, best_aim, speech_windows

Join = Callable[[str, str, int], tuple[str, str]]
Words = list[str]

HEARD_OTHERWISE = (0.0, 0.1)
PAUSE_S = 0.05
_PROSE = Path(__file__).parents[1] / "LICENSE"
_MOST_WORDS = 13  # as between two windows
_HALF_AT_EDGE = 0.6


def prose(rng: np.random.Generator, count: int) -> Words:
    """Words of the licence, from anywhere in it: a text that stays as it is."""
    words = re.findall(r"[a-z']+", _PROSE.read_text(encoding="utf-8").lower())
    start = int(rng.integers(len(words) - count))
    return words[start : start + count]


def digits(rng: np.random.Generator, count: int) -> Words:
    return [str(digit) for digit in rng.integers(0, 10, count)]


def repeated(rng: np.random.Generator, count: int) -> Words:
    """Phrases of up to 3 of 5 words, each said up to 3 times."""
    words: Words = []
    while len(words) < count:
        words += [f"w{word}" for word in rng.integers(0, 5, int(rng.integers(1, 4)))] * int(rng.integers(1, 4))
    return words[:count]


KINDS = {"prose": prose, "digits": digits, "repeated": repeated}


def planted(kind: str, otherwise: float, seams: int, join: Join, seed: int = 1) -> dict[str, Any]:
    """Words said twice and lost for 1,000 seams; `otherwise` is the chance of a word to be heard as another."""
    from rapidfuzz.distance import Levenshtein

    rng = np.random.default_rng((seed, seams))
    edits: Counter[str] = Counter()
    for _ in range(seams):
        before, both, after = (int(rng.integers(*around)) for around in ((4, 14), (2, 7), (4, 14)))
        said = KINDS[kind](rng, before + both + after)
        left, right = (_heard(part, otherwise, rng) for part in (said[: before + both], said[before:]))
        if rng.random() < _HALF_AT_EDGE:
            left[-1] = "hal"
        if rng.random() < _HALF_AT_EDGE:
            right[0] = "alf"
        found = " ".join(join(" ".join(left), " ".join(right), _MOST_WORDS)).split()
        edits.update(edit.tag for edit in Levenshtein.editops(said, found))
    counts = {"twice": edits["insert"], "lost": edits["delete"]}
    return {"words": kind, "heard_otherwise": otherwise, **{name: 1000 * n / seams for name, n in counts.items()}}


def _heard(words: Words, otherwise: float, rng: np.random.Generator) -> Words:
    return [f"other{rng.integers(1000)}" if rng.random() < otherwise else word for word in words]


def spoken(gemma: Gemma, minutes: float, seed: int) -> dict[str, Any]:
    """Words wrong in a recording without pauses; joined, and as the windows were heard."""
    pieces = list(recording(minutes * 60, seed, 40, pauses_s=(PAUSE_S, PAUSE_S)))
    said = " ".join(" ".join(utterance.words) for _, utterance in pieces if utterance)
    listener = Listener(gemma, Wanted(), max_tokens=200, draft="off")
    aim = best_aim(miniature=gemma.miniature, prompt_tokens=listener.prompt_tokens, subtitles=False)
    heard: list[str] = []
    cuts = 0

    def hear(window: Window) -> Heard:
        nonlocal cuts
        found = listener.hear(window.samples, window.spoken_s)
        heard.append(found.text)
        cuts += window.ends_in_cut
        return found

    joined = " ".join(one.text for one in segments(speech_windows([sound for sound, _ in pieces], aim), hear))
    return {
        "minutes": minutes,
        "words": len(said.split()),
        "cuts_without_a_pause": cuts,
        "word_error_rate": error_rates([(said, joined)]).word_error_rate,
        "word_error_rate_unjoined": error_rates([(said, " ".join(heard))]).word_error_rate,
    }


def unjoined(left: str, right: str, most_words: int) -> tuple[str, str]:
    """As if nothing were the same."""
    return left, right


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seams", type=int, default=5000)
    parser.add_argument("--minutes", type=float, default=2, help="0 leaves out what needs espeak-ng")
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    points = []
    for kind in KINDS:
        for otherwise in HEARD_OTHERWISE:
            point, plain = (
                planted(kind, otherwise, arguments.seams, join, arguments.seed) for join in (without_overlap, unjoined)
            )
            points.append({**point, "twice_unjoined": plain["twice"]})
            sys.stderr.write(
                f"{kind:9} {otherwise:4.0%} heard otherwise  for 1,000 seams {point['twice']:5,.0f} words twice "
                f"({plain['twice']:,.0f} unjoined), {point['lost']:4,.0f} lost\n"
            )
    report = {"benchmark": "seams", **where_measured(), "seams": arguments.seams, "seed": arguments.seed}
    report["planted"] = points
    if arguments.minutes:
        report["spoken"] = spoken(load(miniature_folder(), draft="off"), arguments.minutes, arguments.seed)
    sys.stdout.write(json.dumps(report) + "\n")


if __name__ == "__main__":
    main()
