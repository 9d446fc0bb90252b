"""A small model in float32 whose matrices can be exchanged, what they are multiplied with, and its answers."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

import mlx.core as mx
import mlx.nn as nn
import numpy as np

from convert.layerwise import TABLE
from convert.recipes import PACKED_MODULES, module_kind
from convert.sensitivity import Sample
from gemma_mlx.checkpoint import read_headers
from gemma_mlx.config import read_config
from gemma_mlx.model.decoder import FullAttention
from gemma_mlx.model.shared_rows import over_heads, value_order
from gemma_mlx.soft_tokens import soft_tokens
from gemma_mlx.weights import load_model, place_layer, read_tensors

BATCH = 16
"""Answers that are computed at once."""


class _Recorder(nn.Module):
    """A linear that adds up X^T X of all that it is given."""

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        self.linear = linear
        columns = linear.weight.shape[1]
        self.sums = mx.zeros((columns, columns))

    def __call__(self, x: mx.array) -> mx.array:
        rows = x.reshape(-1, x.shape[-1])  # [N, C]
        self.sums = self.sums + rows.T @ rows
        return self.linear(x)


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
        recorders = self._recorders()
        width = self._config.text.hidden_size
        head, positions = mx.zeros((width, width)), 0
        for sample in samples:
            states = self._model(self._embedded(sample), self._model.make_caches(), sample.images)[0]  # [L, D]
            head, positions = head + states.T @ states, positions + states.shape[0]
            mx.eval(head, [recorder.sums for _, _, recorder in recorders.values()])
        found = {f"{TABLE}.weight": head / positions}
        for name, (parent, child, recorder) in recorders.items():
            setattr(parent, child, recorder.linear)
            found[name] = recorder.sums / positions
            if isinstance(parent, FullAttention) and child == "o_proj":
                found[name] = self._in_checkpoint_order(found[name])
        mx.eval(found)
        return found

    def _recorders(self) -> dict[str, tuple[nn.Module, str, _Recorder]]:
        """One in the place of each linear of the layers, with the module that holds it and its name there."""
        found = {}
        for index, layer in enumerate(self._model.language_model.layers):
            for part in ("self_attn", "mlp"):
                parent = layer[part]
                for child, linear in list(parent.children().items()):
                    if isinstance(linear, nn.Linear):
                        recorder = _Recorder(linear)
                        setattr(parent, child, recorder)
                        found[f"language_model.layers.{index}.{part}.{child}.weight"] = (parent, child, recorder)
        return found

    def _in_checkpoint_order(self, moments: mx.array) -> mx.array:
        """Of o_proj in a full layer, whose columns were moved when it was loaded (`shared_rows.py`)."""
        text = self._config.text
        moved = over_heads(value_order(text.global_head_dim, text.rotated_dims), text.num_attention_heads)
        back = mx.array(np.argsort(moved))
        return moments[back][:, back]

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
