"""Builds of other programs get one line that names what to use instead."""

from __future__ import annotations

from pathlib import Path

import pytest

from gemma_mlx.errors import CheckpointError, UsageError
from gemma_mlx.other_formats import UNPACKED_SOURCE, refuse_other_format


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("gemma-4-12b-it-Q4_K_M.gguf", "is GGUF: llama.cpp and Ollama run it"),
        ("mmproj-F16.GGUF", "is GGUF"),
        ("unsloth/gemma-4-12B-it-GGUF", "is GGUF"),
        ("google/gemma-4-12B-it-qat-q4_0-gguf/", "is GGUF"),
        ("google/gemma-4-12B-it-qat-w4a16-ct", "is packed by compressed-tensors"),
        ("someone/gemma-4-12B-it-AWQ", "is packed by awq"),
        ("someone/gemma-4-12B-it-bnb-4bit", "is packed by bitsandbytes"),
    ],
)
def test_a_name_that_says_its_format(name: str, told: str) -> None:
    with pytest.raises(UsageError, match=told) as caught:
        refuse_other_format(name)
    assert f"{UNPACKED_SOURCE} and gemma-mlx convert it with --recipe qat" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_folder_counts_by_what_it_holds(tmp_path: Path) -> None:
    folder = tmp_path / "gemma-awq"
    folder.mkdir()
    refuse_other_format(folder)
    (folder / "mmproj-BF16.gguf").touch()
    with pytest.raises(CheckpointError, match="gemma-awq is GGUF"):
        refuse_other_format(folder)
    (folder / "model.safetensors").touch()
    refuse_other_format(folder)


@pytest.mark.parametrize("name", ["google/gemma-4-12B-it", "x" * 5000, "", UNPACKED_SOURCE])
def test_other_names_pass(name: str) -> None:
    refuse_other_format(name)
