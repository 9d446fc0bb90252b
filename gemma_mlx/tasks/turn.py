"""What was said in one turn of a chat: the message with what was attached to it, the answer, and how it was asked."""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from gemma_mlx.decoding.thinking import Thinking
from gemma_mlx.inputs.image import Budget, open_image
from gemma_mlx.inputs.media import Media, MediaKind, prepare_media
from gemma_mlx.inputs.waveform import SAMPLE_RATE_HZ, read_waveform
from gemma_mlx.tasks.message import user_message

Samples = tuple[NDArray[Any], int]
"""A recording and its rate in Hz."""
_PIECE_BYTES = 1 << 20


@dataclass(eq=False)
class Attached:
    """A picture, sound or video of a message, with all it takes to see or hear it again exactly so."""

    kind: MediaKind
    name: str
    """The file's own name, control bytes included."""
    detail: Budget
    """The most soft tokens that a picture, or a frame of a video, may take."""
    source: Path | Image.Image | NDArray[np.float32]
    """The file, an upright RGB picture, or samples at 16 kHz."""
    label: str = ""
    digest: str = ""
    """Those of its `Media`."""
    media: Media | None = None
    """None until it is prepared, and where it cannot be any more."""

    def prepare(self) -> None:
        """Reads it and makes of it what the model takes. InputError where it cannot be read."""
        held = (self.source, SAMPLE_RATE_HZ) if isinstance(self.source, np.ndarray) else self.source
        self.media = prepare_media({"type": self.kind, self.kind: held, "name": self.name}, self.detail, self.detail)
        self.label, self.digest = self.media.label, self.media.digest

    @property
    def suffix(self) -> str:
        """The end of a file's name that tells a person what is in it."""
        if isinstance(self.source, Path):
            ending = Path(self.name).suffix.lower()
            return ending if ending[1:].isascii() and ending[1:].isalnum() and len(ending) < 10 else ""
        return ".wav" if isinstance(self.source, np.ndarray) else ".png"

    def original(self) -> Iterator[bytes]:
        """The bytes of the file as it was given; of a picture without one a PNG, of samples a WAV of floats: exact.

        OSError where the file cannot be read.
        """
        if isinstance(self.source, Path):
            with self.source.open("rb") as file:
                while piece := file.read(_PIECE_BYTES):
                    yield piece
            return
        written = io.BytesIO()
        if isinstance(self.source, Image.Image):
            self.source.save(written, "PNG", compress_level=1)  # lossless at each level
        else:
            import soundfile

            soundfile.write(written, self.source, SAMPLE_RATE_HZ, format="WAV", subtype="FLOAT")
        yield written.getvalue()


def attached(kind: MediaKind, source: Path | Image.Image | Samples, name: str, detail: Budget) -> Attached:
    """`source` read and prepared. InputError where it cannot be."""
    held: Path | Image.Image | NDArray[np.float32]
    if isinstance(source, Path):
        held = source
    else:  # what no file holds is kept as the model will get it from the file that it is put into
        held = open_image(source) if isinstance(source, Image.Image) else read_waveform(source)
    found = Attached(kind, name, detail, held)
    found.prepare()
    return found


@dataclass(frozen=True)
class Settings:
    """How the next message is asked."""

    system: str | None = None
    thinking: Thinking = False
    detail: Budget | None = None
    """The most soft tokens of a picture attached from now on; None for the checkpoint's own figure."""


@dataclass(frozen=True)
class Turn:
    """A message, and the answer to it once there is one."""

    text: str
    attached: Sequence[Attached] = ()
    settings: Settings = field(default_factory=Settings)
    asked_at: str = ""
    """Date and time of day with its zone, as ISO 8601 writes them."""
    answer: str = ""
    thought: str = ""
    figures: Mapping[str, Any] = field(default_factory=dict)
    """What `Reply` tells of the answer besides its text: `model`, `finish_reason`, tokens, times."""

    @property
    def message(self) -> dict[str, Any]:
        """The user's message as the model gets it."""
        media = [item.media for item in self.attached if item.media is not None]
        images, sounds, videos = ([item for item in media if item.kind == kind] for kind in ("image", "audio", "video"))
        return user_message(self.text, images, sounds, videos)

    @property
    def messages(self) -> list[dict[str, Any]]:
        """The message and the answer."""
        return [self.message, {"role": "assistant", "content": self.answer}]
