from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile
from PIL import Image, ImageDraw

from gemma_mlx.gemma import Gemma
from gemma_mlx.home import miniature_folder
from gemma_mlx.loader import load


@pytest.fixture(scope="session")
def miniature() -> Gemma:
    return load(miniature_folder())


@pytest.fixture(scope="session")
def picture(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("media") / "picture.png"
    image = Image.new("RGB", (320, 240), "white")
    ImageDraw.Draw(image).ellipse((60, 40, 220, 200), fill=(214, 40, 40))
    image.save(path)
    return path


@pytest.fixture(scope="session")
def tone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("media") / "tone.wav"
    soundfile.write(path, np.sin(np.arange(16_000) / 20).astype(np.float32) * 0.3, 16_000)
    return path


@pytest.fixture
def own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The program's own folder, not there yet."""
    home = tmp_path / "home"
    monkeypatch.setenv("GEMMA_MLX_HOME", str(home))
    return home
