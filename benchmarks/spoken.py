"""Long recordings with known words, times and pauses: digit strings read by espeak-ng, over noise of a known level."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from assets.training.speech import VOICES, random_utterance
from gemma_mlx.inputs.sound_stream import SAMPLE_RATE_HZ

SHORTEST_PAUSE_S, LONGEST_PAUSE_S = 0.4, 3.0
_MOST_DIGITS = 6
_SPEECH_LEVEL = 0.1  # Root mean square of each utterance: -20 dB of full scale.


@dataclass(frozen=True)
class Utterance:
    """What is said from `start_s` to `end_s`: from its first to its last sample that is not next to nothing."""

    start_s: float
    end_s: float
    words: str


def recording(
    length_s: float,
    seed: int,
    noise_db: float | None,
    voices: Sequence[str] = VOICES,
    pauses_s: tuple[float, float] = (SHORTEST_PAUSE_S, LONGEST_PAUSE_S),
) -> Iterator[tuple[NDArray[np.float32], Utterance | None]]:
    """Pieces of one recording: silence, or an utterance with its place in the whole.

    White noise lies over all of it, `noise_db` under the speech; None for none at all.
    """
    rng = np.random.default_rng((seed, 314))
    place = 0
    while place < length_s * SAMPLE_RATE_HZ:
        pause = np.zeros(int(rng.uniform(*pauses_s) * SAMPLE_RATE_HZ), np.float32)
        yield _noisy(pause, noise_db, rng), None
        place += len(pause)
        words, sound, _ = random_utterance(rng, int(rng.integers(1, _MOST_DIGITS + 1)), tuple(voices))
        sound = sound * np.float32(_SPEECH_LEVEL / np.sqrt(np.mean(sound**2)))
        times = (place / SAMPLE_RATE_HZ, (place + len(sound)) / SAMPLE_RATE_HZ)
        yield _noisy(sound, noise_db, rng), Utterance(*times, " ".join(words))
        place += len(sound)


def _noisy(sound: NDArray[np.float32], noise_db: float | None, rng: np.random.Generator) -> NDArray[np.float32]:
    if noise_db is not None:
        sound = sound + rng.normal(0, _SPEECH_LEVEL * 10 ** (-noise_db / 20), len(sound)).astype(np.float32)
    return np.asarray(np.clip(sound, -1, 1), dtype=np.float32)
