"""One picture, sound or video of a message -> what the model takes of it, with what a person is told about it."""

from __future__ import annotations

import base64
import binascii
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal
from urllib.parse import unquote, unquote_to_bytes, urlsplit

import numpy as np
from numpy.typing import NDArray

from gemma_mlx.errors import InputError
from gemma_mlx.inputs.detail import auto_budget
from gemma_mlx.inputs.image import Budget, ImagePatches, open_image, patches_of
from gemma_mlx.inputs.video import MAX_FRAME_TOKENS, Video, prepare_video
from gemma_mlx.inputs.waveform import SAMPLE_RATE_HZ, TRAINED_SOUND_S, frames, read_waveform

MediaKind = Literal["image", "audio", "video"]
MEDIA_KINDS: tuple[MediaKind, ...] = ("image", "audio", "video")
MEDIA_TYPES: dict[str, MediaKind] = {
    "image": "image",
    "image_url": "image",
    "audio": "audio",
    "input_audio": "audio",
    "video": "video",
}
"""Type of a message part -> the kind of placeholder that the chat template writes for it."""


@dataclass(frozen=True, eq=False)
class Media:
    """A prepared picture, sound or video. In a part, in place of the path, it spares preparing it in each turn."""

    kind: MediaKind
    data: ImagePatches | NDArray[np.float32] | Video
    """The patches of a picture, the frames [F, 640] of a sound, or the pictures of a video."""
    label: str
    """For a person: "photo.jpg 1024x768 -> 266 tokens". Holds the file's name as it is, control bytes included."""
    digest: str
    """blake2b of all that the model gets to see: two media with the same digest give the same prompt rows."""

    @property
    def soft_tokens(self) -> int:
        return len(self.data) if isinstance(self.data, np.ndarray) else self.data.soft_tokens

    def pieces(self) -> list[tuple[ImagePatches | NDArray[np.float32], str]]:
        """What stands behind one placeholder each, with its digest: the whole, but of a video each frame."""
        if isinstance(self.data, Video):
            return [(frame, f"{self.digest}:{index}") for index, frame in enumerate(self.data.frames)]
        return [(self.data, self.digest)]


def prepare_media(
    part: Mapping[str, Any], max_soft_tokens: Budget, max_frame_tokens: Budget = MAX_FRAME_TOKENS
) -> Media:
    """The picture, sound or video of `part`, whose type is in `MEDIA_TYPES`. InputError where it cannot be read.

    A picture takes at most `max_soft_tokens`, each frame of a video at most `max_frame_tokens` (the usual for "auto").
    The part's `name`, where it has one, stands in the label in place of the file's.
    """
    kind, source = MEDIA_TYPES[part["type"]], _source(part)
    if isinstance(source, Media):
        if source.kind != kind:
            raise InputError(f"{source.label!r} was prepared as {source.kind}; attach it in a part of that type")
        return source
    name = str(part.get("name") or (source.name if isinstance(source, Path) else ""))
    if kind == "image":
        return _image(source, name or "picture", max_soft_tokens)
    if kind == "video":
        return _video(
            source,
            name or "video",
            part.get("frames"),
            MAX_FRAME_TOKENS if max_frame_tokens == "auto" else max_frame_tokens,
        )
    return _audio(source, name or "sound")


def _image(source: Any, name: str, max_soft_tokens: Budget) -> Media:
    upright = open_image(source)
    image = patches_of(upright, auto_budget(upright) if max_soft_tokens == "auto" else max_soft_tokens)
    label = f"{name} {image.width_px}x{image.height_px} -> {image.soft_tokens:,} tokens"
    return Media("image", image, label, _digest("image", image.patches, image.positions))


def _audio(source: Any, name: str) -> Media:
    waveform = read_waveform(source)
    sound = frames(waveform)
    length_s = len(waveform) / SAMPLE_RATE_HZ
    long = f", longer than the {TRAINED_SOUND_S} s that the model was trained on" if length_s > TRAINED_SOUND_S else ""
    label = f"{name} {length_s:.1f} s{long} -> {len(sound)} tokens"
    return Media("audio", sound, label, _digest("audio", sound))


def _video(source: Any, name: str, frames: int | None, max_frame_tokens: int) -> Media:
    video = prepare_video(source, frames, max_frame_tokens, name)
    count, first = len(video.frames), video.frames[0]
    sampled = f"{count} of {video.frames_in_file:,} frames, one every {video.duration_s / count:.2f} s"
    label = (
        f"{name} {first.width_px}x{first.height_px} {video.duration_s:.1f} s, {sampled} -> {video.soft_tokens:,} tokens"
    )
    arrays = [array for frame in video.frames for array in (frame.patches, frame.positions)]
    return Media("video", video, label, _digest(" ".join(["video", *video.stamps]), *arrays))


def _digest(kind: str, *arrays: NDArray[Any]) -> str:
    digest = hashlib.blake2b(kind.encode(), digest_size=16)
    for array in arrays:
        digest.update(repr(array.shape).encode())
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()


def _source(part: Mapping[str, Any]) -> Any:
    """What the part names: a path, bytes, an array with its rate, a PIL image, an open file or a `Media`."""
    part_type = part["type"]
    held = part.get(part_type)
    if part_type == "image_url":
        held = held.get("url") if isinstance(held, Mapping) else held
    elif part_type == "input_audio":
        held = held.get("data") if isinstance(held, Mapping) else None
        if isinstance(held, str) and not held.startswith("data:"):
            return _base64(held)
    if held is None:
        raise InputError(f"a message part of type {part_type!r} holds nothing under {part_type!r}; name the file there")
    if isinstance(held, str):
        return _located(held)
    if isinstance(held, (int, float, Mapping)):
        raise InputError(f"what a part of type {part_type!r} holds is {type(held).__name__}; attach a path or bytes")
    return held


def _located(text: str) -> Path | bytes:
    """The path that `text` is or names as a file URL, or the bytes of a data URL."""
    scheme = text.split(":", 1)[0].lower() if ":" in text else ""
    if scheme in ("http", "https"):
        raise InputError(f"{text[:80]} is not fetched: nothing here uses the network; download it and attach the file")
    if scheme == "data":
        header, comma, payload = text.partition(",")
        if not comma:
            raise InputError("a data URL without a comma holds no data; write data:image/png;base64,DATA")
        return _base64(payload) if header.endswith(";base64") else unquote_to_bytes(payload)
    if scheme == "file":
        url = urlsplit(text)
        if url.netloc not in ("", "localhost"):
            raise InputError(f"{text[:80]} names a file on another machine; copy it here and attach its path")
        return Path(unquote(url.path))
    return Path(text)


def _base64(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise InputError(f"the attached data is not base64 ({error}); encode the file's bytes again") from error
