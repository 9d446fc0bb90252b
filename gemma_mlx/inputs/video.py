"""A video -> frames with their times, each prepared as a small picture.

What is sampled, resized and written as time equals transformers' `Gemma4UnifiedVideoProcessor` and
`Gemma4UnifiedProcessor`: `n` frames, frame `k` of them the one with the index `k * all // n`, whose time is its index
by the frame rate. `n` is one a second and at most the processor's 32, or as many as are asked for. With 10 frames at
2 per second and n = 5:

    index      0  1  2  3  4  5  6  7  8  9
    sampled    x     x     x     x     x
    stamp      00:00 00:01 00:02 00:03 00:04

Where frames do not come at a fixed rate, as in recordings of a screen, the one is taken that a player shows at the time
of the index. A first pass reads the packets, decodes none, and shows what there is; the second jumps to the key frame
before each frame that is wanted, and keeps the frame as patches only.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from gemma_mlx.errors import InputError
from gemma_mlx.inputs.container import damage_in_one_line, open_container, whole_packets
from gemma_mlx.inputs.image import MAX_PIXELS, STILL_BRANDS, ImagePatches, open_image, patches_of
from gemma_mlx.inputs.seekable import seekable_file

if TYPE_CHECKING:
    from av import VideoFrame, VideoStream
    from av.container import InputContainer

MAX_FRAMES = 32
"""processor_config.json: video_processor.num_frames."""
MAX_FRAME_TOKENS = 70
"""processor_config.json: video_processor.max_soft_tokens."""
TRAINED_FRAMES = 60
"""The model was trained on up to a minute at a frame a second (model card)."""

VideoSource = Path | str | bytes | BinaryIO

_FIRST_BYTES = 512
# Matroska, Flash, ASF, MPEG, Ogg
_VIDEO_STARTS = (b"\x1a\x45\xdf\xa3", b"FLV\1", b"\x30\x26\xb2\x75", b"\0\0\1\xba", b"OggS")
_TRANSPORT_PACKETS = ((0, 188), (4, 192))  # MPEG-TS, and as camcorders write it: where the first "G" is, and the next
_QUICKTIME_ATOMS = (b"moov", b"mdat", b"wide")
_USUAL_FPS = 24.0  # The reference's, for a file that gives none.
_HIDDEN_FRAMES = 2  # Packets in a row that are decoded to nothing: some formats hold frames that are never shown.
_REFUSAL = "is not a video that can be read (MP4, MOV, MKV, WebM, AVI, GIF, APNG); convert it to MP4"


@dataclass(frozen=True, eq=False)
class Video:
    """Frames of a video and the times, mm:ss, at which they are shown."""

    frames: tuple[ImagePatches, ...]
    stamps: tuple[str, ...]
    frames_in_file: int
    duration_s: float

    @property
    def soft_tokens(self) -> int:
        """Positions that the frames take in the prompt, without their times."""
        return sum(frame.soft_tokens for frame in self.frames)


@dataclass(frozen=True)
class _Contents:
    """What the packets of a video say. Times count from the first frame, in units of `time_base`."""

    times: NDArray[np.int64]  # [frames] as they are shown
    first: int
    keyframes: NDArray[np.int64]  # times of those that can be decoded without others
    time_base: Fraction
    fps: float


def prepare_video(
    source: VideoSource, frames: int | None = None, max_soft_tokens: int = MAX_FRAME_TOKENS, name: str = "the video"
) -> Video:
    """`source` as `frames` frames, or all where it has fewer, each of at most `max_soft_tokens` patches.

    Without `frames`, one for each second, at most `MAX_FRAMES`, spread over the whole. InputError where the video is
    missing, empty, not a video, damaged, cut short or too large.
    """
    if frames is not None and not (isinstance(frames, int) and 1 <= frames <= TRAINED_FRAMES):
        raise InputError(f"{frames!r} frames of a video are asked for; the model was trained on 1 to {TRAINED_FRAMES}")
    with seekable_file(source, "video") as file:
        contents = _contents(file, name)
        indices = sampled_indices(len(contents.times), contents.fps, frames)
        shown = [_shown(contents, index) for index in indices]
        pictures = _decoded(file, name, contents, shown, max_soft_tokens, jump=True)
        # Where jumping does not lead to the frames, going through all of them does.
        pictures = pictures or _decoded(file, name, contents, shown, max_soft_tokens, jump=False)
    if pictures is None:
        raise InputError(f"{name} is damaged: not all of its frames can be decoded; save or download it again")
    stamps = tuple(stamp(index / contents.fps) for index in indices)
    return Video(tuple(pictures), stamps, len(contents.times), len(contents.times) / contents.fps)


def is_video(source: Path | str | bytes) -> bool:
    """Whether a file shows more than one picture, by its first bytes. False where it cannot be opened."""
    if isinstance(source, bytes):
        start = source[:_FIRST_BYTES]
    else:
        try:
            with Path(source).open("rb") as file:
                start = file.read(_FIRST_BYTES)
        except (OSError, ValueError):
            return False
    if start[4:8] == b"ftyp":
        return start[8:12] not in STILL_BRANDS
    if start.startswith(_VIDEO_STARTS) or start[4:8] in _QUICKTIME_ATOMS or start[8:12] == b"AVI ":
        return True
    packets = [start[first::length][:3] for first, length in _TRANSPORT_PACKETS]
    return b"GGG" in packets and not start.startswith(b"GIF8")


def sampled_indices(count: int, fps: float, frames: int | None = None) -> list[int]:
    """Which of `count` frames to take: `frames`, else one a second up to `MAX_FRAMES`, evenly from the first on."""
    wanted = min(frames or min(MAX_FRAMES, max(1, int(count / fps))), count)
    return [index * count // wanted for index in range(wanted)]


def stamp(seconds: float) -> str:
    """75.9 -> "01:15"."""
    return f"{int(seconds // 60):02d}:{int(seconds % 60):02d}"


def _stream(container: InputContainer, name: str) -> VideoStream:
    """The first stream of pictures that is not the cover of a sound."""
    from av.stream import Disposition

    streams = [stream for stream in container.streams.video if not stream.disposition & Disposition.attached_pic]
    if not streams:
        raise InputError(f"{name} has sound but no pictures; attach it as audio")
    stream = streams[0]
    if stream.codec_context is None:
        raise InputError(f"{name} names no codec that is known here; convert it to H.264 in MP4")
    width_px, height_px = stream.codec_context.width, stream.codec_context.height
    if width_px * height_px > MAX_PIXELS:
        raise InputError(
            f"{name} has frames of {width_px} x {height_px} = {width_px * height_px:,} pixels, more than the limit of "
            f"{MAX_PIXELS:,}; scale it down"
        )
    return stream


def _contents(file: BinaryIO, name: str) -> _Contents:
    """What there is in the file. InputError where it is not a video, is cut, or holds no frame."""
    if not file.read(1):
        raise InputError(f"{name} is empty (0 bytes); attach a video that has been written completely")
    with open_container(file, name, _REFUSAL) as container, damage_in_one_line(name):
        stream = _stream(container, name)
        found: list[tuple[int, bool]] = []
        length = 0
        for packet in whole_packets(container, name):
            if packet.stream_index == stream.index and packet.size and not packet.is_discard:
                time = packet.pts if packet.pts is not None else packet.dts
                found.append((time if time is not None else len(found), packet.is_keyframe))
                length = packet.duration or length
        if container.format.name == "gif":
            _refuse_cut_gif(file, name)
        time_base, claimed_fps = stream.time_base or Fraction(1, 1000), float(stream.average_rate or 0)
    if not found:
        raise InputError(f"{name} holds no frames (zero length); record or attach it again")
    found.sort()
    first, last = found[0][0], found[-1][0]
    times = np.array([time - first for time, _ in found], dtype=np.int64)
    keyframes = np.array([time - first for time, is_keyframe in found if is_keyframe], dtype=np.int64)
    duration_s = float((last + length - first) * time_base)
    return _Contents(times, first, keyframes, time_base, _fps(len(found), duration_s, claimed_fps))


def _refuse_cut_gif(file: BinaryIO, name: str) -> None:
    """FFmpeg takes a GIF that was cut for a shorter one; a whole one ends with a semicolon."""
    file.seek(-min(file.seek(0, 2), 64), 2)
    if not file.read().rstrip(b"\0").endswith(b";"):
        raise InputError(f"{name} ends early: its last block is missing; save or download it again")


def _fps(count: int, duration_s: float, claimed: float) -> float:
    """The rate that the file claims where its frames come at about that rate, else their mean rate."""
    if duration_s <= 0:
        return claimed or _USUAL_FPS
    return claimed if abs(duration_s * claimed - count) < 1 else count / duration_s


def _shown(contents: _Contents, index: int) -> int:
    """Which frame is on show at the time of `index`. Times are rounded, so half a frame later is looked."""
    time = (index + 0.5) / contents.fps / contents.time_base
    return max(0, int(np.searchsorted(contents.times, float(time), side="right")) - 1)


def _decoded(
    file: BinaryIO, name: str, contents: _Contents, shown: list[int], max_soft_tokens: int, *, jump: bool
) -> list[ImagePatches] | None:
    """The frames `shown`, in order. None where they are not where the packets said, or hold errors."""
    import av

    pictures: list[ImagePatches] = []
    with open_container(file, name, _REFUSAL) as container, damage_in_one_line(name):
        stream = _stream(container, name)
        stream.thread_type = "AUTO"
        decoded = container.decode(stream)
        position, count = -1, 0  # The time of the last frame decoded, and how many there were.
        frame: VideoFrame | None = None
        for number in shown:
            time = int(contents.times[number])
            keyframe = contents.keyframes[: np.searchsorted(contents.keyframes, time, side="right")].max(initial=0)
            if jump and keyframe > position:
                try:
                    container.seek(contents.first + int(keyframe), stream=stream)
                except av.FFmpegError:
                    return None
                decoded = container.decode(stream)
                frame = None
            while frame is None or position < time:
                following = next(decoded, None)
                if following is None:
                    return None
                alone = frame is None and jump
                frame, count = following, count + 1
                position = frame.pts - contents.first if frame.pts is not None else int(contents.times[count - 1])
                if alone and position > time:
                    return None
            late = int(np.searchsorted(contents.times, position)) - number
            if late > _HIDDEN_FRAMES or frame.is_corrupt:
                return None
            pictures.append(_patches(frame, max_soft_tokens))
    return pictures


def _patches(frame: VideoFrame, max_soft_tokens: int) -> ImagePatches:
    """A frame, turned as the file says, as patches."""
    has_alpha = any(component.is_alpha for component in frame.format.components)
    pixels: NDArray[Any] = frame.to_ndarray(format="rgba" if has_alpha else "rgb24")  # [height, width, 3 or 4]
    upright = np.rot90(pixels, round(frame.rotation / 90))
    picture = open_image(Image.fromarray(np.ascontiguousarray(upright)))
    return patches_of(picture, max_soft_tokens, of_video=True)
