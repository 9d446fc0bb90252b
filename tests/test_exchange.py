"""The folder that mlx-vlm wrote, stored with its logits, is read as mlx-vlm reads it."""

from __future__ import annotations

from pathlib import Path

import mlx.core as mx

from gemma_mlx.config import read_config
from gemma_mlx.quantization import StoredPacking
from gemma_mlx.weights import load_model

FOLDER = Path(__file__).parent / "golden/exchange"


def test_a_mixed_folder_of_mlx_vlm_gives_its_logits() -> None:
    config = read_config(FOLDER)
    assert config.unknown_keys == ()
    assert config.quantization is not None
    assert {config.quantization.of(path) for path in config.quantization.overrides} == {
        StoredPacking(4, 64),
        StoredPacking(6, 64),
    }
    stored = mx.load(str(FOLDER / "logits.safetensors"))
    assert isinstance(stored, dict)
    ids, wanted = stored["ids"].tolist(), stored["logits"]
    model = load_model(FOLDER, config, mx.float32)
    sound = (ids.index(config.audio_token_id), model.embed_sound(stored["frames"]))
    found = model.logits(model(model.embed(ids, [sound]), model.make_caches()))[0]
    assert mx.abs(wanted).max().item() > 3
    assert mx.abs(found - wanted).max().item() < 1e-4
