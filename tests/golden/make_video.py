"""Writes video.json: what transformers' video processor and processor make of clips without loss.

Run where torch and transformers are installed: `python -m tests.golden.make_video`. The reference's methods are taken
out of their source files one by one, because the modules import torchvision, of which they use two functions that are
written down here: its resize of bytes is torch's `interpolate`.
"""

from __future__ import annotations
import __future__

import ast
import importlib.util
import json
import math
from fractions import Fraction
from io import BytesIO
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple, cast

import av
import numpy as np
from numpy.typing import NDArray

from tests.golden.make_processing import picture, sha256
from tests.inputs.clips import clip

PATH = Path(__file__).with_name("video.json")


class Clip(NamedTuple):
    """A clip of `count` pictures at `fps`, of which `frames` are taken; None: as many as we take by ourselves."""

    count: int
    fps: Fraction
    width_px: int
    height_px: int
    form: str
    frames: int | None = None


CLIPS = [
    Clip(70, Fraction(10), 61, 47, "matroska"),
    Clip(130, Fraction(30_000, 1001), 90, 160, "matroska"),
    Clip(90, Fraction(2), 48, 48, "avi"),
    Clip(100, Fraction(24), 200, 20, "matroska", 32),
    Clip(1, Fraction(25), 70, 50, "avi"),
    Clip(140, Fraction(3, 2), 64, 64, "matroska"),
]


def pictures(made: Clip) -> list[NDArray[np.uint8]]:
    """Pictures that differ from each other, the same on every machine."""
    base = picture(made.width_px, made.height_px).astype(int)
    return [((base + 37 * index) & 255).astype(np.uint8) for index in range(made.count)]


def lossless_clip(*made: Any) -> bytes:
    """The clip as a file whose frames are the pictures, bit for bit."""
    asked = Clip(*made)
    return clip(pictures(asked), asked.form, "ffv1", fps=asked.fps)


def reference_methods() -> SimpleNamespace:
    """The reference's functions and methods of these names; a `self` for them is what they are taken from."""
    import torch

    wanted = {
        "_preprocess",
        "aspect_ratio_preserving_resize",
        "rescale_and_normalize",
        "_fuse_mean_std_and_rescale_factor",
    }
    names: dict[str, Any] = {
        "torch": torch,
        "math": math,
        "tvF": SimpleNamespace(resize=_resize),
        "_SUPPORTED_SOFT_TOKENS": (70,),
        "BatchFeature": lambda data, tensor_type: data,
    }
    for module in ("models.gemma4_unified.video_processing_gemma4_unified", "image_processing_backends"):
        spec = importlib.util.find_spec("transformers")
        assert spec is not None
        assert spec.origin is not None
        source = Path(spec.origin).parent.joinpath(*module.split(".")).with_suffix(".py").read_text(encoding="utf-8")
        tree = ast.parse(source)
        classes = [node for node in tree.body if isinstance(node, ast.ClassDef)]
        found = [node for node in tree.body if isinstance(node, ast.FunctionDef) and "gemma4" in module]
        for node in (node for body in classes for node in body.body):
            if isinstance(node, ast.FunctionDef) and node.name in wanted:
                wanted.remove(node.name)
                found.append(node)
        for function in found:
            function.decorator_list = []
        tree.body = list(found)
        exec(compile(tree, module, "exec", __future__.annotations.compiler_flag), names)
    assert not wanted
    return SimpleNamespace(**names)


def _resize(video: Any, size: list[int], interpolation: Any, antialias: bool) -> Any:
    import torch

    return torch.nn.functional.interpolate(video, size=size, mode="bicubic", antialias=antialias)


class Reference:
    """The reference's video processor with the values of processor_config.json."""

    def __init__(self) -> None:
        self._methods = reference_methods()

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._methods, name)
        return lambda *given, **named: method(self, *given, **named)

    def normalize(self, images: Any, mean: Any, std: Any, inplace: bool) -> Any:
        return images.sub(mean[:, None, None]).div_(std[:, None, None])

    def __call__(self, frames: NDArray[np.uint8]) -> dict[str, Any]:
        """Frames [frames, height, width, 3] -> what `_preprocess` gives."""
        import torch

        found = self._preprocess(
            videos=[torch.from_numpy(frames).permute(0, 3, 1, 2).contiguous()],
            do_resize=True,
            resample=None,
            do_rescale=True,
            rescale_factor=0.00392156862745098,
            do_normalize=True,
            image_mean=(0.0, 0.0, 0.0),
            image_std=(1.0, 1.0, 1.0),
            return_tensors=None,
            patch_size=16,
            max_soft_tokens=70,
            pooling_kernel_size=3,
        )
        return cast("dict[str, Any]", found)


def reference_video(file: bytes, frames: int | None) -> tuple[NDArray[np.float32], NDArray[np.int32], str]:
    """Patches [frames x P, 6912], their positions, and the text that stands for the placeholder.

    As transformers reads a file with PyAV: the mean rate that the container gives, frames in the order of decoding.
    Without `frames` one for each second is asked of its sampling, and not more than the processor's 32.
    """
    from transformers.models.gemma4_unified.processing_gemma4_unified import Gemma4UnifiedProcessor
    from transformers.video_utils import VideoMetadata, default_sample_indices_fn

    with av.open(BytesIO(file)) as container:
        decoded = np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])
        metadata = VideoMetadata(len(decoded), float(container.streams.video[0].average_rate or 0))
    if frames is None and len(default_sample_indices_fn(metadata, fps=1)) <= 32:
        metadata.frames_indices = default_sample_indices_fn(metadata, fps=1)
    else:
        metadata.frames_indices = default_sample_indices_fn(metadata, num_frames=frames or 32)
    found = Reference()(decoded[metadata.frames_indices])
    [count] = found["num_soft_tokens_per_video"]
    written = {"num_soft_tokens_per_video": [count], "video_metadata": [metadata]}
    tokens = SimpleNamespace(boi_token="<|image>", eoi_token="<image|>", video_token="<|video|>")
    text = Gemma4UnifiedProcessor.replace_video_token(cast(Gemma4UnifiedProcessor, tokens), written, 0)
    patches, positions = (
        found[name][:, :count].flatten(0, 1).numpy() for name in ("pixel_values_videos", "video_position_ids")
    )
    return patches, positions.astype(np.int32), text


def stamps_of(text: str) -> list[str]:
    """The times in the reference's text."""
    return [part.split("<|image>")[0].strip() for part in text.split("<image|>")[:-1]]


def main() -> None:
    import torch
    import transformers

    clips = []
    for made in CLIPS:
        patches, positions, text = reference_video(lossless_clip(*made), made.frames)
        clips.append({"stamps": stamps_of(text), "patches": sha256(patches), "positions": sha256(positions)})
    written = {"made_by": f"transformers {transformers.__version__}, torch {torch.__version__}", "clips": clips}
    PATH.write_text(json.dumps(written, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
