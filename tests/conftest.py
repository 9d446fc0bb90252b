"""Fixtures that several folders share: the tiny random model and what the reference made of it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import settings

from gemma_mlx import Gemma, load
from gemma_mlx.config import Config, read_config
from gemma_mlx.home import miniature_folder
from gemma_mlx.model.gemma4 import Gemma4
from gemma_mlx.weights import load_model
from tests.golden.cases import TINY, Case, load_cases

settings.register_profile("ci", derandomize=True)
if os.environ.get("CI"):
    settings.load_profile("ci")  # a change is judged by what it did, not by the luck of a draw


@pytest.fixture(scope="session")
def tiny_folder() -> Path:
    """A checkpoint of 12 layers with random weights, in the released format; window 8."""
    return TINY


@pytest.fixture(scope="session")
def tiny_config() -> Config:
    return read_config(TINY)


@pytest.fixture(scope="session")
def tiny_model(tiny_config: Config) -> Gemma4:
    """The model in `tiny_folder`, in the type that this machine computes in."""
    return load_model(TINY, tiny_config)


@pytest.fixture(scope="session")
def cases() -> dict[str, Case]:
    """What the reference made of `tiny_folder`, by the case's name."""
    return load_cases()


@pytest.fixture(scope="session")
def miniature() -> Gemma:
    """The trained toy that comes with the repository."""
    return load(miniature_folder())
