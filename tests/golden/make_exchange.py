"""Makes the folder that mlx-vlm wrote, and the logits it has for it: reading it must not need mlx-vlm.

    python -m tests.golden.make_exchange

writes exchange/ next to itself: config.json, model.safetensors and its index as `mlx_vlm.convert -q --quant-predicate
mixed_4_6` makes them of the small random source of tests/convert, and logits.safetensors with the ids, the sound, what
mlx-vlm answers in float32, and the versions.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from importlib import metadata
from pathlib import Path

import mlx.core as mx
import numpy as np
from mlx_vlm.convert import convert
from mlx_vlm.utils import load_model

from tests.convert.small_source import CONFIG, FRAME, HIDDEN, source_tensors, write_source

FOLDER = Path(__file__).parent / "exchange"
FRAMES, AT = 5, 4


def main() -> None:
    """Writes the folder anew."""
    shutil.rmtree(FOLDER, ignore_errors=True)
    with tempfile.TemporaryDirectory() as place:
        scale = HIDDEN**-0.5  # so that the softcap does not swallow the differences
        tensors = {
            name: array * scale if array.ndim == 2 and "norm" not in name else array
            for name, array in source_tensors().items()
        }
        source = write_source(Path(place) / "source", tensors)
        config = json.loads(json.dumps(CONFIG))
        config["vision_config"] |= {"model_patch_size": 4, "output_proj_dims": HIDDEN}
        config["audio_config"] |= {"output_proj_dims": FRAME}
        (source / "config.json").write_text(json.dumps(config))
        convert(str(source), str(Path(place) / "out"), quantize=True, quant_predicate="mixed_4_6")
        FOLDER.mkdir()
        for name in ("config.json", "model.safetensors", "model.safetensors.index.json"):
            shutil.copy(Path(place) / "out" / name, FOLDER)
    model = load_model(FOLDER)
    model.set_dtype(mx.float32)
    random = np.random.default_rng(2)
    ids = random.integers(3, 200, 20).tolist()
    ids[AT : AT + FRAMES] = [model.config.audio_token_id] * FRAMES
    frames = mx.array(random.normal(size=(FRAMES, FRAME)).astype(np.float32))
    answer = model(
        mx.array([ids]),
        cache=model.make_cache(),
        input_features=frames[None],
        input_features_mask=mx.ones((1, FRAMES)),
    )
    mx.save_safetensors(
        str(FOLDER / "logits.safetensors"),
        {"ids": mx.array(ids), "frames": frames, "logits": answer.logits[0]},
        {name: metadata.version(name) for name in ("mlx", "mlx-vlm")},
    )


if __name__ == "__main__":
    main()
