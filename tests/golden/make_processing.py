"""Writes processing.json: what transformers' processors give for pictures and sounds made by formula.

Run where torch and transformers are installed: `python tests/golden/make_processing.py`. The reference's picture
functions are taken out of its source file one by one, because the module imports torchvision, which they do not use;
its resize is torch's `interpolate` on uint8, which is what torchvision calls.
"""

from __future__ import annotations

import ast
import hashlib
import importlib.util
import json
import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
from numpy.typing import NDArray

PATH = Path(__file__).with_name("processing.json")
SIZES = [
    *((224, 224), (1024, 256), (1024, 768), (768, 1024), (1920, 1080), (7680, 4320), (48, 48), (1, 1), (50, 37)),
    *((3, 900), (900, 3), (1, 7), (7, 1), (1, 5000), (5000, 1), (1, 100_000), (13, 1999), (1999, 13)),
]
BUDGETS = (70, 140, 280, 560, 1120)
PICTURES = [(61, 47, 70), (640, 401, 70), (3, 900, 70), (900, 3, 140), (48, 48, 140), (1200, 900, 280)]
LENGTHS = [1, 639, 640, 641, 16_000]


def picture(width_px: int, height_px: int) -> NDArray[np.uint8]:
    """[height, width, 3] with sharp edges and smooth slopes, the same on every machine."""
    y, x = np.mgrid[0:height_px, 0:width_px]
    return np.stack([(x * 7 + y * 13) & 255, ((x * y) >> 3) & 255, (x ^ y) * 5 & 255], axis=-1).astype(np.uint8)


def sound(length: int) -> NDArray[np.float32]:
    return (((np.arange(length) * 7919) % 2001 - 1000) / 1024).astype(np.float32)


def sha256(array: NDArray[Any]) -> str:
    return hashlib.sha256(np.ascontiguousarray(array).tobytes()).hexdigest()


def reference_functions() -> SimpleNamespace:
    """The module-level functions of transformers' image processor for this model."""
    import torch

    spec = importlib.util.find_spec("transformers.models.gemma4_unified")
    assert spec is not None
    assert spec.origin is not None
    source = Path(spec.origin).with_name("image_processing_gemma4_unified.py").read_text(encoding="utf-8")
    tree = ast.parse(source)
    tree.body = [node for node in tree.body if isinstance(node, ast.FunctionDef)]
    names: dict[str, Any] = {"torch": torch, "math": math}
    exec(compile(tree, "image_processing_gemma4_unified.py", "exec"), names)
    return SimpleNamespace(**names)


def reference_size(width_px: int, height_px: int, budget: int) -> tuple[int, int]:
    height, width = reference_functions().get_aspect_ratio_preserving_size(height_px, width_px, 16, budget * 9, 3)
    return width, height


def reference_patches(pixels: NDArray[np.uint8], budget: int) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Patches [P, 6912] and positions [P, 2], by the steps of the reference's `_preprocess`."""
    import torch

    functions = reference_functions()
    width, height = reference_size(pixels.shape[1], pixels.shape[0], budget)
    image = torch.from_numpy(pixels).permute(2, 0, 1)
    if tuple(image.shape[1:]) != (height, width):
        resized = torch.nn.functional.interpolate(image[None], size=[height, width], mode="bicubic", antialias=True)
        image = resized[0]
    patches = functions.convert_image_to_patches(image * 0.00392156862745098, 16)
    grid = torch.meshgrid(torch.arange(width // 16), torch.arange(height // 16), indexing="xy")
    positions = torch.stack(grid, dim=-1).reshape(len(patches), 2)
    merged, merged_positions = functions.patches_merge(patches[None], positions[None], len(patches) // 9)
    return merged[0].numpy(), merged_positions[0].numpy()


def reference_frames(waveform: NDArray[np.float32]) -> NDArray[np.float32]:
    from transformers.models.gemma4_unified.feature_extraction_gemma4_unified import (
        Gemma4UnifiedAudioFeatureExtractor,
    )

    features = Gemma4UnifiedAudioFeatureExtractor()(waveform, return_tensors="np")
    return np.asarray(features["input_features"][0])


def main() -> None:
    import torch
    import transformers

    pictures = []
    for width, height, budget in PICTURES:
        patches, positions = reference_patches(picture(width, height), budget)
        found = {"patches": sha256(patches), "positions": sha256(positions.astype(np.int32))}
        levels = np.rint(patches[0, :12] * 255).astype(int).tolist()
        pictures.append({"size": [width, height, budget], "soft_tokens": len(patches), "first": levels, **found})
    written = {
        "made_by": f"transformers {transformers.__version__}, torch {torch.__version__}",
        "sizes": [[w, h, budget, *reference_size(w, h, budget)] for w, h in SIZES for budget in BUDGETS],
        "pictures": pictures,
        "sounds": [[length, sha256(reference_frames(sound(length)))] for length in LENGTHS],
    }
    PATH.write_text(json.dumps(written, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
