"""Second moments of what the linears of a layer are given."""

from __future__ import annotations

from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest

from convert.layerwise import LayerwiseModel, forward
from convert.second_moments import SHARED, diagonal_blocks, recorded, widest_block
from gemma_mlx.config import parse_config, read_config, read_json
from gemma_mlx.home import miniature_folder
from tests.convert.small_source import HIDDEN, write_source


def test_as_few_blocks_as_there_can_be() -> None:
    def widths(columns: int, most: int) -> list[int]:
        blocks = diagonal_blocks(columns, most)
        assert [block.start for block in blocks[1:]] == [block.stop for block in blocks[:-1]]
        assert (blocks[0].start, blocks[-1].stop) == (0, columns)
        return [block.stop - block.start for block in blocks]

    assert widths(15_360, 4096) == [3840] * 4
    assert widths(8192, 4096) == [4096] * 2
    assert widths(4096, 4096) == [4096]
    assert widths(96, 4096) == [96]
    assert widths(320, 256) == [256, 64]


def test_the_widest_block_is_that_of_o_proj_in_the_12b() -> None:
    released = parse_config(read_json(Path(__file__).parents[1] / "golden" / "released_config.json"))
    assert widest_block(released.text) == 4096
    assert widest_block(read_config(miniature_folder()).text) == 768


@pytest.mark.parametrize("index", [0, 1])
def test_they_are_of_all_positions_and_in_the_checkpoints_order(tmp_path: Path, index: int) -> None:
    """tr(W M W^T) is the mean squared output of a linear, also where loading moved its columns: those of o_proj in the
    full layer, the second one here."""
    source = write_source(tmp_path / "source")
    layer = list(LayerwiseModel(source, read_config(source)).layers())[index]
    decoder = layer.decoder()
    states = [mx.random.normal((1, length, HIDDEN), key=mx.random.key(length)) for length in (9, 14)]
    with recorded(decoder.layers[0], layer.text) as recorders:
        for state in states:
            forward(decoder, state, ())
    for path in SHARED:
        part, _, child = path.partition(".")
        outputs: list[mx.array] = []
        linear = decoder.layers[0][part][child]

        def listened(x: mx.array, linear=linear, outputs=outputs) -> mx.array:  # type: ignore[no-untyped-def]
            outputs.append(linear(x).reshape(-1, linear.weight.shape[0]))
            return linear(x)

        setattr(decoder.layers[0][part], child, listened)
        for state in states:
            forward(decoder, state, ())
        setattr(decoder.layers[0][part], child, linear)
        weight = np.array(layer.weights[f"{path}.weight"])
        [second] = recorders[path].seconds()
        wanted = mx.square(mx.concatenate(outputs)).sum(axis=-1).mean().item()
        assert np.trace(weight @ second @ weight.T) == pytest.approx(wanted, rel=1e-4)
