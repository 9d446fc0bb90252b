"""A small model in float32 whose matrices can be exchanged, what they are multiplied with, and its answers."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path

import mlx.core as mx

from convert.layerwise import TABLE
from convert.recipes import PACKED_MODULES, module_kind
from convert.second_moments import SHARED, recorded
from convert.sensitivity import Sample
from gemma_mlx.checkpoint import read_headers
from gemma_mlx.config import read_config
from gemma_mlx.soft_tokens import soft_tokens
from gemma_mlx.weights import load_model, place_layer, read_tensors

BATCH = 16
"""Answers that are computed at once."""


class RoundingModel:
    """The unpacked model in a folder."""

    def __init__(self, folder: Path) -> None:
        self._config = read_config(folder)
        self._model = load_model(folder, self._config, mx.float32)
        self.layers = self._config.text.num_hidden_layers
        infos = {name: info for name, info in read_headers(folder).items() if name.startswith("language_model.")}
        self.weights = {
            name: read_tensors(info.file)[info.name].astype(mx.float32) for name, info in sorted(infos.items())
        }
        """By canonical name, as in the checkpoint."""
        self.matrices = [name for name, weight in self.weights.items() if module_kind(name) in PACKED_MODULES]
        """The names of those that recipes pack."""
        mx.eval(self.weights)

    def exchange(self, matrices: Mapping[str, mx.array]) -> None:
        """The model has `matrices`, and all else from the folder."""
        weights = self.weights | dict(matrices)
        for index, layer in enumerate(self._model.language_model.layers):
            prefix = f"language_model.layers.{index}."
            own = {name.removeprefix(prefix): part for name, part in weights.items() if name.startswith(prefix)}
            place_layer(layer, own, self._config.text)
        self._model.language_model.embed_tokens.weight = weights[f"{TABLE}.weight"]

    def moments(self, samples: Sequence[Sample]) -> dict[str, mx.array]:
        """X^T X / N of what each matrix is multiplied with over all N positions, [C, C], by the matrix' name. For the
        token table those of the head."""
        width = self._config.text.hidden_size
        head, positions = mx.zeros((width, width)), 0
        layers = self._model.language_model.layers
        with ExitStack() as stack:
            recorders = [stack.enter_context(recorded(layer, self._config.text)) for layer in layers]
            for sample in samples:
                states = self._model(self._embedded(sample), self._model.make_caches(), sample.images)[0]  # [L, D]
                head, positions = head + states.T @ states, positions + states.shape[0]
                mx.eval(head)
        found = {f"{TABLE}.weight": head / positions}
        for index, of_layer in enumerate(recorders):
            for path, recorder in of_layer.items():
                [second] = recorder.seconds()
                found |= {f"language_model.layers.{index}.{module}.weight": mx.array(second) for module in SHARED[path]}
        mx.eval(found)
        return {name: moments for name, moments in found.items() if name in self.weights}

    def _embedded(self, sample: Sample) -> mx.array:
        spans = soft_tokens(self._model, sample.prompt.spans)
        media = [(item.start, item.rows(0, item.stop - item.start)) for item in spans]
        return self._model.embed([*sample.prompt.ids, *sample.answer_ids], media)  # [1, L, D]

    def answer_logprobs(self, samples: Sequence[Sample]) -> list[mx.array]:
        """Log-probabilities [A, V] at the positions of each answer."""
        by_images = defaultdict(list)
        for number, sample in enumerate(samples):
            by_images[tuple(sample.images)].append(number)
        found = {}
        for images, numbers in by_images.items():
            numbers.sort(key=lambda number: len(samples[number].prompt) + len(samples[number].answer_ids))
            for first in range(0, len(numbers), BATCH):
                batch = numbers[first : first + BATCH]
                embedded = [self._embedded(samples[number]) for number in batch]
                longest = embedded[-1].shape[1]
                padded = [mx.pad(one, [(0, 0), (0, longest - one.shape[1]), (0, 0)]) for one in embedded]
                states = self._model(mx.concatenate(padded), self._model.make_caches(), images)  # [B, L, D]
                for row, number in enumerate(batch):
                    logits = self._model.logits(states[row, samples[number].judged])
                    found[number] = logits - mx.logsumexp(logits, axis=-1, keepdims=True)
                    mx.eval(found[number])
        return [found[number] for number in range(len(samples))]
