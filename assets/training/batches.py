"""Samples -> arrays: chat text, placeholders, patches, frames, and which tokens are the answer."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from tokenizers import Tokenizer

from assets.training.dialogue import dialogue_sample
from assets.training.reading import reading_sample
from assets.training.sample import FRAME_SAMPLES, PATCH_PX, Sample
from assets.training.scenes import caption_sample
from assets.training.speech import SpeechBank, hearing_sample
from assets.training.tokenizer import SPECIAL_IDS

TASKS = ("scenes", "reading", "hearing", "dialogue")
LAST_LEVELS = {"scenes": 1, "reading": 6, "hearing": 6, "dialogue": 2}


@dataclass(frozen=True)
class Batch:
    """Right-padded arrays of one task; images and sounds in the order of their placeholders."""

    ids: np.ndarray  # [B, L] int64
    blocks: np.ndarray  # [B, L] int64: number of the image block of a soft token, -1 elsewhere
    answer_rows: np.ndarray  # [A] row of each answer token
    answer_columns: np.ndarray  # [A] column of the token before it, whose logits predict it
    targets: np.ndarray  # [A]
    patches: np.ndarray | None  # [N, P, 6912] uint8
    positions: np.ndarray | None  # [N, P, 2] int64, -1 where padded
    frames: np.ndarray | None  # [S, T, 640] float32
    frame_mask: np.ndarray | None  # [S, T] bool


def render(sample: Sample) -> tuple[str, str]:
    """The prompt as the chat template writes it, and the text the model has to produce after it."""
    text = "<bos>"
    messages = sample.messages
    thinking = sample.thought is not None
    system = messages[0]["content"] if messages[0]["role"] == "system" else None
    if thinking or system is not None:
        text += "<|turn>system\n" + ("<|think|>\n" if thinking else "") + (system or "") + "<turn|>\n"
    for message in messages[system is not None :]:
        role = "model" if message["role"] == "assistant" else "user"
        text += f"<|turn>{role}\n{_content(message['content'])}<turn|>\n"
    text += "<|turn>model\n"
    if thinking:
        return text, f"<|channel>thought\n{sample.thought}\n<channel|>{sample.answer}<turn|>"
    return text + "<|channel>thought\n<channel|>", sample.answer + "<turn|>"


def _content(content: str | list[dict[str, Any]]) -> str:
    if isinstance(content, str):
        return content
    marks = {"image": "<|image|>", "audio": "<|audio|>"}
    return "".join(part["text"] if part["type"] == "text" else marks[part["type"]] for part in content)


def resized_px(width: int, height: int, budget_tokens: int) -> tuple[int, int]:
    """Width and height after the processor's resize: multiples of 48 px, at most `budget_tokens` patches."""
    factor = math.sqrt(budget_tokens * PATCH_PX**2 / (width * height))
    columns, rows = math.floor(factor * width / PATCH_PX), math.floor(factor * height / PATCH_PX)
    if columns == 0 or rows == 0:
        long = min(max(width, height) // min(width, height), budget_tokens)
        columns, rows = (long, 1) if width > height else (1, long)
    return columns * PATCH_PX, rows * PATCH_PX


def prepare_image(image: Image.Image, budget_tokens: int) -> tuple[np.ndarray, np.ndarray]:
    """Patches [n, 6912] uint8 in raster order and their (x, y) [n, 2]."""
    size = resized_px(*image.size, budget_tokens)
    pixels = np.asarray(image.convert("RGB").resize(size, Image.Resampling.BICUBIC))
    rows, columns = size[1] // PATCH_PX, size[0] // PATCH_PX
    patches = pixels.reshape(rows, PATCH_PX, columns, PATCH_PX, 3).transpose(0, 2, 1, 3, 4).reshape(rows * columns, -1)
    y, x = np.divmod(np.arange(rows * columns), columns)
    return patches, np.stack([x, y], axis=1)


def prepare_sound(sound: np.ndarray) -> np.ndarray:
    """Frames [n, 640] float32, the last one padded with zeros."""
    count = -(-len(sound) // FRAME_SAMPLES)
    return np.pad(sound, (0, count * FRAME_SAMPLES - len(sound))).reshape(count, FRAME_SAMPLES)


class BatchMaker:
    """Makes the batch of (task, step) from a seed alone."""

    def __init__(self, tokenizer: Tokenizer, work: Path, seed: int) -> None:
        """Speaks the utterance bank in `work` first where it is missing."""
        self.tokenizer = tokenizer
        self.seed = seed
        self.bank = SpeechBank(work, seed)
        self.encode = lru_cache(maxsize=50_000)(self._encode)

    def _encode(self, text: str) -> tuple[int, ...]:
        return tuple(self.tokenizer.encode(text, add_special_tokens=False).ids)

    def samples(self, task: str, level: int, step: int, count: int) -> list[Sample]:
        """`count` samples of `task`; another seed, step or task gives others."""
        rng = np.random.default_rng((self.seed, TASKS.index(task), step))
        if task == "scenes":
            return [caption_sample(rng, level) for _ in range(count)]
        if task == "reading":
            return [reading_sample(rng, level) for _ in range(count)]
        if task == "hearing":
            # The long prompt for the whole batch or for none of it, so that few tokens are padding.
            official = level >= 2 and rng.random() < (0.5 if level < 5 else 0.7)
            return [hearing_sample(rng, level, self.bank, official) for _ in range(count)]
        pictures = level >= 2 and rng.random() < 0.6
        return [dialogue_sample(rng, level, pictures) for _ in range(count)]

    def batch(self, task: str, level: int, step: int, count: int, budget_tokens: int = 70) -> Batch:
        """The arrays of `samples`."""
        return self.collate(self.samples(task, level, step, count), budget_tokens)

    def collate(self, samples: list[Sample], budget_tokens: int = 70) -> Batch:
        """Samples -> one right-padded batch."""
        rows, blocks, spans, images, sounds = [], [], [], [], []
        for sample in samples:
            prompt, answer = render(sample)
            media = [prepare_image(image, budget_tokens) for image in sample.images]
            frames = [prepare_sound(sound) for sound in sample.sounds]
            images += media
            sounds += frames
            ids, block = expand(self.encode(prompt), [len(p) for p, _ in media], [len(f) for f in frames])
            target = list(self.encode(answer))
            rows.append(ids + target)
            blocks.append(block + [-1] * len(target))
            spans.append((len(ids), len(ids) + len(target)))
        length = _round_up(max(map(len, rows)), 16)
        return Batch(
            ids=np.array([row + [0] * (length - len(row)) for row in rows], np.int64),
            blocks=np.array([block + [-1] * (length - len(block)) for block in blocks], np.int64),
            answer_rows=np.concatenate([np.full(b - a, i) for i, (a, b) in enumerate(spans)]),
            answer_columns=np.concatenate([np.arange(a, b) - 1 for a, b in spans]),
            targets=np.concatenate([row[a:b] for row, (a, b) in zip(rows, spans, strict=True)]),
            patches=_stack([p for p, _ in images], 0, 10, 4) if images else None,
            positions=_stack([xy for _, xy in images], -1, 10, 4) if images else None,
            frames=_stack(sounds, 0, 16) if sounds else None,
            frame_mask=_stack([np.ones(len(f), bool) for f in sounds], False, 16) if sounds else None,
        )


def expand(ids: tuple[int, ...], patches: list[int], frames: list[int]) -> tuple[list[int], list[int]]:
    """Each placeholder becomes start, soft tokens, end; beside the ids, the number of each image's block."""
    out: list[int] = []
    blocks: list[int] = []
    images, sounds = iter(enumerate(patches)), iter(frames)
    for token in ids:
        if token == SPECIAL_IDS["<|image|>"]:
            number, count = next(images)
            out += [SPECIAL_IDS["<|image>"], *[token] * count, SPECIAL_IDS["<image|>"]]
            blocks += [-1, *[number] * count, -1]
        elif token == SPECIAL_IDS["<|audio|>"]:
            count = next(sounds)
            out += [SPECIAL_IDS["<|audio>"], *[token] * count, SPECIAL_IDS["<audio|>"]]
            blocks += [-1] * (count + 2)
        else:
            out.append(token)
            blocks.append(-1)
    return out, blocks


def _stack(arrays: list[np.ndarray], fill: Any, rows: int, batch: int = 1) -> np.ndarray:
    """Arrays padded with `fill` to one length and stacked; sizes are multiples of `rows` and `batch`.

    Few different shapes spare oneDNN from compiling a kernel for each.
    """
    longest = _round_up(max(map(len, arrays)), rows)
    out = np.full((_round_up(len(arrays), batch), longest, *arrays[0].shape[1:]), fill, arrays[0].dtype)
    for row, array in zip(out, arrays, strict=False):
        row[: len(array)] = array
    return out


def _round_up(value: int, step: int) -> int:
    return -(-value // step) * step
