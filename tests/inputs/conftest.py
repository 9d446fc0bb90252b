from __future__ import annotations

from pathlib import Path

import pytest

from tests.inputs.small_checkpoint import write_small_checkpoint


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint folder without weights; nobody writes to it."""
    folder = tmp_path_factory.mktemp("checkpoint")
    write_small_checkpoint(folder)
    return folder
