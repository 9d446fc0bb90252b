"""How much each module suffers from being packed: measured, on prompts with answers, for a model larger than memory.

One module at a time is packed as `MEASURED`. What comes out of its layer then differs from the clean states; both go on
through the clean layers behind it, as rows of one batch, so that one pass over the weights does for all modules:

    layer            0                1                    ...    head
    clean        x ------> x0 ----------------> x1 ----             p
    q of 0 packed  \\----> x0'----------------> x1'----             p'    damage of layers.0.q = KL(p || p')
    q of 1 packed              \\-------------> x1"----             p"    damage of layers.1.q = KL(p || p")

The 12B has 328 such modules in its layers and the token table, which is also the head; a module is carried through 24
layers on average. That is the work of 168 passes of the model over the same tokens, 4 TFLOP a token, and 329 states of
15 kB a token: 0.5 GB for 100 tokens. So one prompt at a time is measured, and each is kept as soon as it is done.

KL is a mean over the answers' positions, in nats. It is taken that small changes add up and that KL grows with their
square: so a sum of damages is a model's, and a module's at other bits is that at `MEASURED` times the ratio of squared
errors.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import cast

import mlx.core as mx

from convert.layerwise import TABLE, Layer, LayerwiseModel, forward
from convert.packing import pack_rows
from convert.recipes import PACKED_MODULES, Packing, module_kind
from convert.source_tensor import SLICE_NUMBERS
from gemma_mlx.inputs.prompt import Prompt

MEASURED = Packing(bits=4, group_size=64)
BATCH_TOKENS = 2048
"""States that go through a layer at once. In the MLP each takes 61 kB, three times over."""
HEAD_ROWS = 256
"""Positions that meet the head at once: each needs 262,144 numbers, 1 MB."""


@dataclass(frozen=True)
class Sample:
    """A prompt and the ids of the answer after it."""

    prompt: Prompt
    answer_ids: tuple[int, ...]

    @property
    def images(self) -> list[tuple[int, int]]:
        return [(span.start, span.start + span.length) for span in self.prompt.spans if span.kind == "image"]

    @property
    def digest(self) -> str:
        """Changes with anything that the model is given."""
        found = hashlib.sha256(repr((self.prompt.ids, self.answer_ids)).encode())
        for span in self.prompt.spans:
            found.update(repr((span.kind, span.start, span.length, span.digest)).encode())
        return found.hexdigest()[:16]

    @property
    def judged(self) -> slice:
        """The positions whose logits say the answer's tokens."""
        return slice(len(self.prompt) - 1, len(self.prompt) + len(self.answer_ids) - 1)


def damages(model: LayerwiseModel, sample: Sample, progress: Callable[[], None] = lambda: None) -> dict[str, float]:
    """By canonical path of each module that recipes pack, the KL that packing it alone costs: a sum over the positions
    of the answer. `progress` is told of each layer."""
    names = ["", TABLE]  # the clean states, and those with this module packed
    states = [model.embeddings(sample.prompt, sample.answer_ids)]  # each [1, L, D]
    model.table_packed(MEASURED)
    states.append(model.embeddings(sample.prompt, sample.answer_ids))
    model.restore_table()
    for layer in model.layers():
        packed = {path: layer.decoder({path: MEASURED}) for path in packable(layer)}
        fresh = [forward(decoder, states[0], sample.images) for decoder in packed.values()]
        states = _all_through(layer, states, sample.images) + fresh
        names += [layer.prefix + path for path in packed]
        del packed
        progress()
    ends = [state[0, sample.judged] for state in states]  # each [A, D]
    del states
    return _damages_at_head(model, dict(zip(names, ends, strict=True)))


def packable(layer: Layer) -> list[str]:
    """The paths within `layer` of the modules that recipes pack."""
    return sorted(name.removesuffix(".weight") for name in layer.weights if module_kind(f".{name}") in PACKED_MODULES)


def _all_through(layer: Layer, states: list[mx.array], images: Sequence[tuple[int, int]]) -> list[mx.array]:
    decoder = layer.decoder()
    count = max(1, BATCH_TOKENS // states[0].shape[1])
    through: list[mx.array] = []
    for first in range(0, len(states), count):
        batch = mx.concatenate(states[first : first + count])  # [B, L, D]
        through += mx.split(forward(decoder, batch, images), batch.shape[0])
    mx.eval(through)
    return through


def _damages_at_head(model: LayerwiseModel, ends: dict[str, mx.array]) -> dict[str, float]:
    """KL of each end but the clean one, "", against that; each [A, D]."""
    clean = ends.pop("")
    found = dict.fromkeys(ends, 0.0)
    for first in range(0, clean.shape[0], HEAD_ROWS):
        rows = slice(first, first + HEAD_ROWS)
        clean_logprobs = _logprobs(model, clean[rows])
        for name, end in ends.items():
            if name != TABLE:
                found[name] += divergence(clean_logprobs, _logprobs(model, end[rows]))
        model.table_packed(MEASURED)
        found[TABLE] += divergence(clean_logprobs, _logprobs(model, ends[TABLE][rows]))
        model.restore_table()
    return found


def _logprobs(model: LayerwiseModel, states: mx.array) -> mx.array:
    logits = model.logits(states)
    return logits - mx.logsumexp(logits, axis=-1, keepdims=True)


def divergence(clean: mx.array, other: mx.array) -> float:
    """Sum over rows of KL(clean || other), of log-probabilities [A, V].

    As the mean of exp(d) - 1 - d, with d the difference of both: no term is negative, so that nothing cancels where the
    two hardly differ.
    """
    difference = other - clean
    terms = mx.exp(clean) * (mx.expm1(difference) - difference)
    return cast("float", terms.sum(axis=-1).sum().item())


def error_ratios(model: LayerwiseModel, packings: Iterable[Packing]) -> dict[str, dict[Packing, float]]:
    """By canonical path of each module that recipes pack, and by packing: its squared error over that at `MEASURED`.

    Of about a million numbers, in rows spread evenly over the module.
    """
    wanted = list(packings)
    found = {TABLE: _error_ratios(model.table, wanted)}
    for layer in model.layers():
        for path in packable(layer):
            found[layer.prefix + path] = _error_ratios(layer.weights[f"{path}.weight"], wanted)
    return found


def _error_ratios(weight: mx.array, packings: Sequence[Packing]) -> dict[Packing, float]:
    rows = weight[:: max(1, weight.size // SLICE_NUMBERS)]
    measured = pack_rows(rows, MEASURED).tally.squared_error
    if not measured:
        return dict.fromkeys(packings, 0.0)
    return {packing: pack_rows(rows, packing).tally.squared_error / measured for packing in packings}
