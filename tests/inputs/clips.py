"""Video and sound files made on the spot."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from io import BytesIO

import av
import numpy as np
from numpy.typing import NDArray

CONTAINERS = [
    *(("mp4", "libx264", "aac"), ("mov", "mpeg4", "aac"), ("matroska", "libx264", "libopus")),
    *(("webm", "libvpx-vp9", "libopus"), ("avi", "mpeg4", "libmp3lame"), ("mpegts", "libx264", "aac")),
]
_PIXELS = {"gif": "rgb8", "apng": "rgb24", "ffv1": "bgr0"}


def tone(seconds: float, rate_hz: int = 48_000, hz: float = 440) -> NDArray[np.float32]:
    """[n] of a sine at half of full scale."""
    return (0.5 * np.sin(2 * np.pi * hz * np.arange(round(rate_hz * seconds)) / rate_hz)).astype(np.float32)


def numbered(count: int, width_px: int = 96, height_px: int = 64) -> list[NDArray[np.uint8]]:
    """Pictures [height, width, 3], each of its own grey with a bright corner at the top left."""
    pictures = []
    for index in range(count):
        picture = np.full((height_px, width_px, 3), 20 + index * 200 // count, dtype=np.uint8)
        picture[: height_px // 4, : width_px // 4] = 255
        pictures.append(picture)
    return pictures


def clip(
    pictures: Sequence[NDArray[np.uint8]],
    form: str = "mp4",
    codec: str = "libx264",
    *,
    fps: Fraction | int = 30,
    times: Sequence[int] | None = None,
    sound: NDArray[np.float32] | None = None,
    sound_codec: str = "aac",
    rate_hz: int = 48_000,
    turned_degrees: int = 0,
    options: dict[str, str] | None = None,
    codec_options: dict[str, str] | None = None,
) -> bytes:
    """A file of `pictures`, at `fps` or each at its time in ms, and of `sound`, mono."""
    file = BytesIO()
    with av.open(file, "w", format=form, options=options or {}) as container:
        video = audio = None
        if len(pictures):
            video = container.add_stream(codec, rate=fps, options=codec_options or {})
            video.height, video.width = pictures[0].shape[:2]
            video.pix_fmt = _PIXELS.get(codec, "yuv420p")
            if turned_degrees:
                video.set_display_rotation(turned_degrees)
            if times is not None:
                video.time_base = video.codec_context.time_base = Fraction(1, 1000)
        if sound is not None:
            audio = container.add_stream(sound_codec, rate=rate_hz, layout="mono")
        for index, picture in enumerate(pictures):
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            if times is not None:
                frame.pts, frame.time_base = times[index], Fraction(1, 1000)
            container.mux(video.encode(frame))
        if audio is not None:
            frame = av.AudioFrame.from_ndarray(sound[None], format="fltp", layout="mono")
            frame.sample_rate = rate_hz
            container.mux(audio.encode(frame))
            container.mux(audio.encode(None))
        if video is not None:
            container.mux(video.encode(None))
    return file.getvalue()
