"""Files of video, and of sound that libsndfile does not know, opened with PyAV: FFmpeg's libraries, in this process.

Only the formats named here are opened, and only the bytes of the file itself are read: among FFmpeg's formats are
lists of other files and of addresses on the network, which it would go and open.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction
from typing import TYPE_CHECKING, Any, BinaryIO

from gemma_mlx.errors import InputError

if TYPE_CHECKING:
    from av import Packet
    from av.container import InputContainer

_WITH_PICTURES = "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,gif,apng,mpegts,mpeg,flv,asf,ogg"
_SOUND_ALONE = "aac,mp3,ac3,eac3,amr,amrnb,amrwb,wv,ape,tta,wav,w64,aiff,caf,au,flac"
_TOLERANCE_S = Fraction(1, 10)
"""A container's duration is rounded, and counts what decoders drop at both ends."""


@contextmanager
def open_container(file: BinaryIO, name: str, refusal: str) -> Iterator[InputContainer]:
    """The streams of an open, seekable file. InputError, with `refusal`, where no format named here fits."""
    import av

    formats = f"{_WITH_PICTURES},{_SOUND_ALONE}"
    file.seek(0)
    try:
        container = av.open(file, "r", options={"format_whitelist": formats}, metadata_errors="replace")
    except (av.FFmpegError, ValueError, OSError) as error:
        file.seek(0)
        if file.read(8)[4:] == b"ftyp":
            refusal = "ends early: its table of contents is missing; save or download it again"
        raise InputError(f"{name} {refusal}") from error
    with container:
        yield container


@contextmanager
def damage_in_one_line(name: str) -> Iterator[None]:
    """InputError for whatever FFmpeg finds wrong inside the `with`."""
    import av

    try:
        yield
    except av.FFmpegError as error:
        reason = " ".join((error.strerror or str(error)).split())
        raise InputError(f"{name} is damaged ({reason}); save or download it again") from error


def whole_packets(container: InputContainer, name: str) -> Iterator[Packet[Any]]:
    """Every packet in the order of the file. InputError at their end, where that comes before the promised one.

    A container's duration is that of its longest stream, so all streams count. Where packets do not say how long they
    last, a cut shorter than the longest distance between two of them is not noticed.
    """
    first = last = gap = Fraction(0)
    begun, cut, counts = False, False, [0] * len(container.streams)
    latest: dict[int, Fraction] = {}
    for packet in container.demux():
        if packet.pts is not None and packet.time_base is not None:
            start = packet.pts * packet.time_base
            first, begun = min(first, start) if begun else start, True
            last = max(last, start + (packet.duration or 0) * packet.time_base)
            if not packet.duration:
                gap = max(gap, abs(start - latest.get(packet.stream_index, start)))
            latest[packet.stream_index] = start
        if packet.size:
            cut = packet.is_corrupt
            counts[packet.stream_index] += 1
        yield packet
    promised = Fraction(container.duration or 0, 1_000_000)
    if container.format.name.startswith("matroska") and 0 < first < promised:
        first = Fraction(0)  # Matroska's duration is the time of its end
    if cut or last - first < promised - gap - _TOLERANCE_S:
        raise InputError(
            f"{name} ends early: {float(last - first):.1f} of {float(promised):.1f} s are there; "
            "save or download it again"
        )
    # AVI counts what it holds, and has no other duration than that of what is left.
    missing = max((stream.frames - count for stream, count in zip(container.streams, counts, strict=True)), default=0)
    if container.format.name == "avi" and missing > 0:
        raise InputError(f"{name} ends early: {missing:,} of its frames are missing; save or download it again")
