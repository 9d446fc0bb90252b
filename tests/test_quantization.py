"""What config.json says of packing, in every spelling that MLX programs write."""

from __future__ import annotations

from typing import Any

import pytest

from gemma_mlx.errors import CheckpointError
from gemma_mlx.quantization import StoredPacking, read_quantization

DEFAULT = {"group_size": 64, "bits": 4, "mode": "affine"}
UP = "language_model.layers.0.mlp.up_proj"


def refusal(data: dict[str, Any]) -> str:
    with pytest.raises(CheckpointError) as caught:
        read_quantization({"quantization": data})
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("key", ["quantization", "quantization_config"])
def test_a_default_is_for_every_module(key: str) -> None:
    found = read_quantization({key: DEFAULT})
    assert found is not None
    assert found.of(UP) == found.of("embed_audio.embedding_projection") == StoredPacking(4, 64)


@pytest.mark.parametrize(
    "spelling",
    [
        "language_model.model.layers.0.mlp.up_proj",  # mlx-vlm, mlx-lm, ours
        "model.language_model.layers.0.mlp.up_proj",  # as the release names its tensors
        "language_model.layers.0.mlp.up_proj",
    ],
)
def test_a_module_of_its_own_packing_is_known_by_every_name(spelling: str) -> None:
    found = read_quantization({"quantization": DEFAULT | {spelling: {"bits": 6, "group_size": 32}}})
    assert found is not None
    assert found.of(UP) == StoredPacking(6, 32)
    assert found.of(UP.replace("0", "1")) == StoredPacking(4, 64)


def test_a_module_may_be_whole_or_say_that_it_is_as_the_others() -> None:
    whole, same = "embed_audio.embedding_projection", "embed_vision.embedding_projection"
    found = read_quantization({"quantization": DEFAULT | {f"model.{whole}": False, same: True}})
    assert found is not None
    assert found.of(whole) is None
    assert found.of(same) == StoredPacking(4, 64)


@pytest.mark.parametrize(("mode", "bits", "group_size"), [("mxfp4", 4, 32), ("nvfp4", 4, 16), ("mxfp8", 8, 32)])
def test_float_modes_have_one_form_each(mode: str, bits: int, group_size: int) -> None:
    data = {"mode": mode, "bits": bits, "group_size": group_size, "a": {"bits": 8, "group_size": 64}}
    found = read_quantization({"quantization": data})
    assert found is not None
    assert found.of(UP) == StoredPacking(bits, group_size, mode)
    assert found.of("a") == StoredPacking(8, 64)  # MLX takes an entry without a mode for affine
    assert f"MLX has {bits} bits in groups of {group_size}" in refusal(data | {"group_size": 64})


@pytest.mark.parametrize(("bits", "group_size"), [(7, 64), (4, 0), ("4", 64), (4, None)])
def test_a_packing_that_mlx_lacks_is_refused(bits: object, group_size: object) -> None:
    assert "MLX has" in refusal({"bits": bits, "group_size": group_size})
    assert "MLX has" in refusal(DEFAULT | {UP: {"bits": bits, "group_size": group_size}})


def test_a_mode_that_mlx_lacks_is_refused_with_those_it_has() -> None:
    assert "mode 'nf4'; gemma-mlx reads affine, mxfp4, nvfp4, mxfp8" in refusal(DEFAULT | {"mode": "nf4"})


@pytest.mark.parametrize("method", ["compressed-tensors", "awq", "gptq", "bitsandbytes"])
def test_packings_of_other_programs_are_refused_by_name(method: str) -> None:
    message = refusal({"quant_method": method, "bits": 4, "group_size": 128})
    assert message.startswith(f"the folder is packed by {method}, which gemma-mlx does not read; download")
    assert "google/gemma-4-12B-it-qat-q4_0-unquantized" in message


@pytest.mark.parametrize("config", [{}, {"quantization": None}, {"quantization_config": {"is_qat": True}}])
def test_where_nothing_is_packed_there_is_no_quantization(config: dict[str, Any]) -> None:
    assert read_quantization(config) is None
