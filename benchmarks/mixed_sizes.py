"""Does measured sensitivity beat other ways to spend the same bytes? `python -m benchmarks.mixed_sizes SENSITIVITY`.

Converts the miniature by each recipe and says how far its answers move: mean KL to the unpacked model in nats at the
positions of answers, with its standard error over prompts, and the share of positions with the same likeliest token.
The prompts are sample pictures and sounds that calibration does not use. Ends with one JSON line.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import mlx.core as mx
import numpy as np

from convert.calibration import Exchange, default_exchanges, samples_of
from convert.conversion import convert_source
from convert.measurement import Measurement, measurement
from convert.mixed import CARD_BYTES, mixed_recipe
from convert.recipes import RECIPES, Packing, Recipe
from convert.sensitivity import Sample, divergence
from convert.source import Source, read_source
from gemma_mlx.config import Config, read_config
from gemma_mlx.home import miniature_folder, samples_folder
from gemma_mlx.model.gemma4 import Gemma4
from gemma_mlx.soft_tokens import soft_tokens
from gemma_mlx.tasks.captioning import PROMPT as CAPTION_PROMPT
from gemma_mlx.tasks.captioning import READ_PROMPT
from gemma_mlx.tasks.message import user_message
from gemma_mlx.tasks.transcription import transcription_prompt
from gemma_mlx.weights import load_model

HELD_OUT = range(2, 12)
"""Calibration has samples 0 and 1 of each kind."""
ABOVE_4BIT = (1.0, 1.05, 1.1)


def held_out() -> list[Exchange]:
    """Ten prompts of each kind."""
    folder = samples_folder()
    samples = json.loads((folder / "samples.json").read_text(encoding="utf-8"))["samples"]
    expected = {sample["file"]: sample["expected"] for sample in samples}
    found = []
    for number in HELD_OUT:
        scene, text, speech = (folder / f"scene-{number:02}.png", folder / f"text-{number:02}.png",
                               folder / f"speech-{number:02}.flac")  # fmt: skip
        found += [
            Exchange([user_message(CAPTION_PROMPT, [scene])], expected[scene.name]),
            Exchange([user_message(READ_PROMPT, [text])], expected[text.name]),
            Exchange([user_message(transcription_prompt(), sounds=[speech])], expected[speech.name]),
        ]
    return found


def rule_of_thumb(config: Config) -> Recipe:
    """As `mixed_4_6` of mlx-lm: 6 bits for v_proj and down_proj in the first and last eighth of the layers and every
    third one between, and for the head; 4 bits for all else."""
    layers, six = config.text.num_hidden_layers, Packing(6, 64)
    chosen = {"language_model.embed_tokens": six}
    for index in range(layers):
        ends = index < layers // 8 or index >= 7 * layers // 8
        if ends or (index - layers // 8) % 3 == 2:
            prefix = f"language_model.layers.{index}"
            chosen |= {f"{prefix}.self_attn.v_proj": six, f"{prefix}.mlp.down_proj": six}
    return Recipe("rule of thumb", Packing(4, 64), chosen)


def recipes(source: Source, config: Config, found: Measurement, folder: Path) -> Iterator[tuple[str, Recipe]]:
    """Each way to spend bytes, and mixed at the same ones."""
    others = {name: RECIPES[name] for name in ("4bit", "4bit-g32", "6bit")} | {"rule of thumb": rule_of_thumb(config)}
    for name, recipe in others.items():
        nbytes = convert_source(source, folder / f"size of {name}", recipe).bytes_written + CARD_BYTES
        yield name, recipe
        for factor in ABOVE_4BIT if name == "4bit" else (1.0,):
            above = f" + {100 * (factor - 1):.0f} %" if factor > 1 else ""
            yield f"mixed, size of {name}{above}", mixed_recipe(source, found, int(nbytes * factor))


def answer_logprobs(model: Gemma4, sample: Sample) -> mx.array:
    """Log-probabilities [A, V] at the positions of the answer."""
    media = [(item.start, item.rows(0, item.stop - item.start)) for item in soft_tokens(model, sample.prompt.spans)]
    embeddings = model.embed([*sample.prompt.ids, *sample.answer_ids], media)
    logits = model.logits(model(embeddings, model.make_caches(), sample.images)[0, sample.judged])
    found = logits - mx.logsumexp(logits, axis=-1, keepdims=True)
    mx.eval(found)
    return found


def figures(model: Gemma4, samples: list[Sample], clean: list[mx.array]) -> dict[str, Any]:
    """How far the answers of `model` are from `clean`."""
    divergences, same, positions = [], 0, 0
    for sample, expected in zip(samples, clean, strict=True):
        logprobs = answer_logprobs(model, sample)
        divergences.append(divergence(expected, logprobs) / len(sample.answer_ids))
        same += cast("int", (logprobs.argmax(axis=-1) == expected.argmax(axis=-1)).sum().item())
        positions += len(sample.answer_ids)
    error = float(np.std(divergences, ddof=1) / np.sqrt(len(divergences)))
    return {"kl_nats": float(np.mean(divergences)), "kl_error_nats": error, "same_top_token": same / positions}


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.mixed_sizes", description=__doc__)
    parser.add_argument("sensitivity", type=Path, metavar="SENSITIVITY", help="keeps the measurement; made if missing")
    asked = parser.parse_args()
    folder = miniature_folder()
    config, source = read_config(folder), read_source(folder)
    calibration = samples_of(folder, default_exchanges(miniature=True))
    found = measurement(folder, config, source.identity, calibration, asked.sensitivity)
    samples = samples_of(folder, held_out())
    model = load_model(folder, config, mx.float32)
    clean = [answer_logprobs(model, sample) for sample in samples]
    points = []
    _say(f"{'recipe':<30} {'bytes':>10} {'KL x 1000':>10} {'+-':>6} {'same token':>10}")
    with tempfile.TemporaryDirectory() as place:
        for name, recipe in recipes(source, config, found, Path(place)):
            out = Path(place) / name
            nbytes = convert_source(source, out, recipe).bytes_written
            packed = load_model(out, read_config(out), mx.float32)
            point = {"recipe": name, "bytes": nbytes, **figures(packed, samples, clean)}
            points.append(point)
            _say(
                f"{name:<30} {nbytes:>10,} {1000 * point['kl_nats']:>10.3f} {1000 * point['kl_error_nats']:>6.3f} "
                f"{100 * point['same_top_token']:>9.1f}%"
            )
    _say(json.dumps({"benchmark": "mixed_sizes", "model": folder.name, "prompts": len(samples), "points": points}))


if __name__ == "__main__":
    main()
