"""Spoken digit strings, made by espeak-ng."""

from __future__ import annotations

import io
import subprocess
from pathlib import Path

import numpy as np
import soundfile
import soxr

from assets.training.sample import SAMPLE_RATE_HZ as RATE_HZ
from assets.training.sample import TRANSCRIBE_PROMPT, Sample, sound_turn

VOICES = ("en-us+m3", "en-gb+f3", "en-gb-scotland+m7")
UNSEEN_VOICES = ("en-us+f4", "en-029+m2", "en-gb-x-rp+f1")
TRANSCRIBE_PROMPTS = (
    "Transcribe this.",
    "What did I say?",
    "Which digits do you hear?",
    "Write down the digits.",
    TRANSCRIBE_PROMPT.replace("in its original language.", "in English into English text."),
)
# Utterances kept per number of digits; longer strings are joined from these.
BANK_SIZES = {1: 900, 2: 1500, 3: 1800, 4: 1200, 5: 1000, 6: 1000}
LONGEST = (1, 2, 3, 4, 6, 6, 8)
LAST_LEVEL = len(LONGEST) - 1


def speak(digits: str, voice: str, words_per_minute: int, pitch: int) -> np.ndarray:
    """Mono float32 at 16 kHz of espeak-ng reading `digits` one by one."""
    command = ["espeak-ng", "-v", voice, "-s", str(words_per_minute), "-p", str(pitch), "--stdout", " ".join(digits)]
    wav = subprocess.run(command, check=True, capture_output=True).stdout
    sound, rate = soundfile.read(io.BytesIO(wav), dtype="float32")
    return np.asarray(soxr.resample(sound, rate, RATE_HZ), dtype=np.float32)


def random_utterance(
    rng: np.random.Generator, count: int, voices: tuple[str, ...] = VOICES
) -> tuple[str, np.ndarray, str]:
    """`count` digits, their sound without the silence around it, and the voice."""
    digits = "".join(str(d) for d in rng.integers(0, 10, count))
    voice = str(rng.choice(voices))
    sound = speak(digits, voice, int(rng.integers(125, 186)), int(rng.integers(30, 71)))
    return digits, trimmed(sound), voice


def trimmed(sound: np.ndarray) -> np.ndarray:
    """`sound` without the silence around it."""
    loud = np.flatnonzero(np.abs(sound) > 0.01)
    return np.asarray(sound[loud[0] : loud[-1] + 1])


class SpeechBank:
    """Utterances of the three training voices, kept in one file so that each is spoken once."""

    def __init__(self, folder: Path, seed: int) -> None:
        """Reads the bank of `seed` in `folder`, which is made first where it is missing."""
        path = folder / f"speech-{seed}.npz"
        if not path.exists():
            _make_bank(path, seed)
        stored = np.load(path)
        self.samples = stored["samples"]
        self.starts = stored["starts"]
        self.digits = [str(d) for d in stored["digits"]]
        self.by_count = {n: [i for i, d in enumerate(self.digits) if len(d) == n] for n in BANK_SIZES}

    def utterance(self, rng: np.random.Generator, count: int) -> tuple[str, np.ndarray]:
        """`count` digits and their clean sound; more than six are joined from two utterances with a pause."""
        parts = [count] if count <= 6 else [count // 2, count - count // 2]
        digits, sounds = "", []
        for part in parts:
            i = int(rng.choice(self.by_count[part]))
            digits += self.digits[i]
            sound = self.samples[self.starts[i] : self.starts[i + 1]].astype(np.float32) / 32768
            sounds += [sound, np.zeros(int(rng.uniform(0.03, 0.25) * RATE_HZ), np.float32)]
        return digits, np.concatenate(sounds[:-1])


def _make_bank(path: Path, seed: int) -> None:
    rng = np.random.default_rng((seed, 77))
    digits, sounds = [], []
    for count, size in BANK_SIZES.items():
        for _ in range(size):
            text, sound, _voice = random_utterance(rng, count)
            digits.append(text)
            sounds.append((np.clip(sound, -1, 1) * 32767).astype(np.int16))
    starts = np.concatenate([[0], np.cumsum([len(s) for s in sounds])])
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial.npz")
    np.savez(partial, samples=np.concatenate(sounds), starts=starts, digits=np.array(digits))
    partial.rename(path)


def recorded(rng: np.random.Generator, sound: np.ndarray, noise: float) -> np.ndarray:
    """`sound` as a microphone might give it: tempo and gain varied, silence around it, noise `noise` times as loud."""
    tempo = rng.uniform(0.93, 1.07)
    steps = np.arange(0, len(sound) - 1, tempo)
    sound = np.interp(steps, np.arange(len(sound)), sound).astype(np.float32)
    lead, tail = (int(rng.uniform(0.02, 0.4) * RATE_HZ) for _ in range(2))
    padded = np.concatenate([np.zeros(lead, np.float32), sound, np.zeros(tail, np.float32)])
    level = float(np.sqrt(np.mean(sound**2))) * noise * rng.uniform(0.05, 1.0)
    hiss = rng.normal(0, 1, len(padded)).astype(np.float32)
    if rng.random() < 0.5:
        hiss = np.convolve(hiss, np.ones(6, np.float32) / 6**0.5, mode="same").astype(np.float32)
    gain = float(np.exp(rng.uniform(np.log(0.12), np.log(1.2))))
    return np.asarray(np.clip(gain * (padded + level * hiss), -1, 1), dtype=np.float32)


def hearing_sample(rng: np.random.Generator, level: int, bank: SpeechBank, official: bool) -> Sample:
    """Digits to write down, more of them and more noise as `level` rises; from level 4 rarely only noise."""
    if level >= 4 and rng.random() < 0.03:
        hiss = rng.normal(0, 1, int(rng.uniform(0.3, 2.0) * RATE_HZ)) * np.exp(rng.uniform(-9, -3))
        digits, sound = "", hiss.astype(np.float32)
    else:
        longest = LONGEST[level]
        shortest = 1 if rng.random() < 0.3 else max(1, longest // 2)
        digits, clean = bank.utterance(rng, int(rng.integers(shortest, longest + 1)))
        sound = recorded(rng, clean, noise=0.03 if level < 3 else 0.1)
    prompt = str(rng.choice(TRANSCRIBE_PROMPTS[:4]))
    if official:
        prompt = TRANSCRIBE_PROMPT if rng.random() < 0.85 else TRANSCRIBE_PROMPTS[4]
    return Sample([sound_turn(prompt)], " ".join(digits), sounds=[sound])
