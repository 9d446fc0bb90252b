"""A checkpoint run one layer at a time, so that it may be larger than memory: 24 GB pass through 16.

The layers are those of `gemma_mlx/model/`. What stays here is what goes into the first and comes out of the last one:
token table, patch embedder, projections, the last norm. Everything is computed in float32, on every device: what one
packed module changes is small, and bfloat16 would add its own rounding to it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import mlx.core as mx
import mlx.nn as nn
from mlx.utils import tree_unflatten

from convert.packing import joined, pack_rows
from convert.recipes import Packing
from convert.source_tensor import SLICE_NUMBERS
from gemma_mlx.checkpoint import read_headers
from gemma_mlx.config import Config
from gemma_mlx.inputs.prompt import Prompt
from gemma_mlx.model.decoder import Decoder
from gemma_mlx.model.gemma4 import Gemma4
from gemma_mlx.model.masks import BlockSizes
from gemma_mlx.soft_tokens import soft_tokens
from gemma_mlx.weights import check_finite, place_layer, read_tensors

TABLE = "language_model.embed_tokens"
"""The token table, which is the head too."""


class LayerwiseModel:
    """The unpacked checkpoint in a folder; of its layers none is held."""

    def __init__(self, folder: Path, config: Config) -> None:
        self._folder, self._config = folder, config
        self._infos = read_headers(folder)
        no_layers = replace(config, text=replace(config.text, num_hidden_layers=0, layer_types=()))
        self._ends = Gemma4(no_layers)
        names = [name for name in self._infos if not name.startswith("language_model.layers.")]
        weights = self._read(names)
        self._table = weights.pop(f"{TABLE}.weight")  # 2 GB in bfloat16: float32 is for the rows that are looked up
        self._ends.update(tree_unflatten(list(weights.items())))
        self.restore_table()

    def _read(self, names: Sequence[str]) -> dict[str, mx.array]:
        """The tensors with these canonical names, in float32 but for the token table. NaN and infinity are refused."""
        files = {file: read_tensors(file) for file in {self._infos[name].file for name in names}}
        found = {name: files[self._infos[name].file][self._infos[name].name] for name in names}
        check_finite(self._folder, found)
        return {name: array if name.startswith(TABLE) else array.astype(mx.float32) for name, array in found.items()}

    def embeddings(self, prompt: Prompt, answer_ids: Sequence[int]) -> mx.array:
        """What the first layer takes for a prompt and the answer after it, [1, L, D]."""
        media = [(item.start, item.rows(0, item.stop - item.start)) for item in soft_tokens(self._ends, prompt.spans)]
        rows = self._ends.embed([*prompt.ids, *answer_ids], media)
        mx.eval(rows)
        return rows

    def logits(self, states: mx.array) -> mx.array:
        """What comes out of the last layer [..., D] -> logits [..., V]."""
        return self._ends.logits(self._ends.language_model.norm(states))

    @property
    def table(self) -> mx.array:
        """The numbers of the token table, [V, D]."""
        return self._table

    def table_packed(self, packing: Packing) -> None:
        """From now on the token table is a packed one, until `restore_table`."""
        text = self._config.text
        table = nn.QuantizedEmbedding(text.vocab_size, text.hidden_size, packing.group_size, packing.bits)
        table.update(packed_parts(self._table, packing))
        self._put_table(table)

    def restore_table(self) -> None:
        """The token table is the checkpoint's."""
        table = nn.Embedding(1, 1)
        table.weight = self._table
        self._put_table(table)

    def _put_table(self, table: nn.Module) -> None:
        self._ends.language_model.update_modules({"embed_tokens": table})

    def release_ends(self) -> None:
        """Frees all that is not a layer, 2 GB of it the token table; nothing but `layers` works afterwards."""
        del self._table, self._ends
        mx.clear_cache()

    def layers(self) -> Iterator[Layer]:
        """The layers in order, each read when its turn comes; keep none of them."""
        for index in range(self._config.text.num_hidden_layers):
            prefix = f"language_model.layers.{index}."
            weights = self._read([name for name in self._infos if name.startswith(prefix)])
            mx.eval(weights)
            yield Layer(self._config, index, {name.removeprefix(prefix): array for name, array in weights.items()})
            del weights
            mx.clear_cache()


class Layer:
    """One layer and its weights."""

    def __init__(self, config: Config, index: int, weights: dict[str, mx.array]) -> None:
        kind = config.text.layer_types[index]
        self.text = replace(config.text, num_hidden_layers=1, layer_types=(kind,))
        self.prefix = f"language_model.layers.{index}."
        self.weights = weights

    def decoder(self, packed: Mapping[str, Packing] | None = None) -> Decoder:
        """A decoder of this layer alone; its modules named in `packed` are packed so."""
        packed = packed or {}
        decoder = Decoder(self.text)
        weights = dict(self.weights)

        def packing_of(path: str, module: nn.Module) -> bool | dict[str, int]:
            return {"bits": packed[path].bits, "group_size": packed[path].group_size} if path in packed else False

        nn.quantize(decoder.layers[0], class_predicate=packing_of)
        for path, packing in packed.items():
            parts = packed_parts(weights.pop(f"{path}.weight"), packing)
            weights |= {f"{path}.{name}": part for name, part in parts.items()}
        place_layer(decoder.layers[0], weights, self.text)
        return decoder


def forward(decoder: Decoder, states: mx.array, images: Sequence[tuple[int, int]]) -> mx.array:
    """States [B, L, D] from position 0 on, evaluated after the layers of `decoder`; each row for itself."""
    states = decoder.through_layers(states, decoder.make_caches(), images, BlockSizes())
    mx.eval(states)
    return states


def packed_parts(weight: mx.array, packing: Packing) -> dict[str, mx.array]:
    """`weight` [R, columns] as our conversion packs it, named as MLX's packed layers name it; scales in float32."""
    rows_at_once = max(1, SLICE_NUMBERS // weight.shape[1])
    starts = range(0, weight.shape[0], rows_at_once)
    packed = joined([pack_rows(weight[first : first + rows_at_once], packing) for first in starts])
    scales, biases = (part.astype(mx.float32) for part in (packed.scales, packed.biases))
    return {"weight": packed.codes, "scales": scales, "biases": biases}
