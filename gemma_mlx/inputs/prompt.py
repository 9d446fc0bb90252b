"""Messages, in the role/content form of chat APIs -> token ids with room for the media, and the media."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gemma_mlx.config import read_json
from gemma_mlx.errors import CheckpointError, InputError
from gemma_mlx.inputs.chat_format import ChatFormat
from gemma_mlx.inputs.image import BUDGETS, PATCH_SIDE_PX, Budget, ImagePatches
from gemma_mlx.inputs.media import MEDIA_KINDS, MEDIA_TYPES, Media, MediaKind, prepare_media
from gemma_mlx.inputs.parts import ROLES, ROLES_WITH_MEDIA, why_refused, with_sound_tracks
from gemma_mlx.inputs.tokenizer import Tokenizer
from gemma_mlx.inputs.video import MAX_FRAME_TOKENS, Video
from gemma_mlx.inputs.waveform import SAMPLE_RATE_HZ, SAMPLES_PER_FRAME


@dataclass(frozen=True, eq=False)
class MediaSpan:
    """Where the rows of a picture, a sound or a frame of a video go: `ids[start : start + length]`, its soft tokens."""

    kind: MediaKind
    start: int
    length: int
    media: ImagePatches | NDArray[np.float32]
    digest: str


@dataclass(frozen=True, eq=False)
class Prompt:
    """Token ids, and the media whose rows take the place of their soft tokens, in the order of the ids."""

    ids: tuple[int, ...]
    spans: tuple[MediaSpan, ...] = ()
    labels: tuple[str, ...] = ()
    """For a person, of each picture, sound and video."""

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def image_tokens(self) -> int:
        return self._soft_tokens("image")

    @property
    def audio_tokens(self) -> int:
        return self._soft_tokens("audio")

    @property
    def video_tokens(self) -> int:
        return self._soft_tokens("video")

    def shared_tokens(self, other: Prompt) -> int:
        """How many ids both begin with."""
        pairs = zip(self.ids, other.ids, strict=False)
        return next((index for index, (a, b) in enumerate(pairs) if a != b), min(len(self), len(other)))

    def _soft_tokens(self, kind: str) -> int:
        return sum(span.length for span in self.spans if span.kind == kind)


class PromptBuilder:
    """A checkpoint's tokenizer, chat template and default image budget, put together to make prompts."""

    def __init__(self, tokenizer: Tokenizer, chat_format: ChatFormat, max_soft_tokens: int = 280) -> None:
        self.tokenizer = tokenizer
        self.chat_format = chat_format
        self.max_soft_tokens = max_soft_tokens

    @classmethod
    def from_folder(cls, folder: Path) -> PromptBuilder:
        """CheckpointError where a file is missing or asks for patches or frames of another size than Gemma 4 12B's."""
        return cls(Tokenizer(folder), ChatFormat.from_folder(folder), image_budget(folder / "processor_config.json"))

    def prepare(self, part: Mapping[str, Any], max_soft_tokens: Budget | None = None) -> Media:
        """The picture, sound or video of `part`, to stand in the part in place of its file, for use in many turns."""
        return prepare_media(part, self._budget(max_soft_tokens), max_soft_tokens or MAX_FRAME_TOKENS)

    def build(
        self,
        messages: Sequence[Mapping[str, Any]],
        *,
        thinking: bool = False,
        tools: Sequence[Mapping[str, Any]] | None = None,
        max_soft_tokens: int | None = None,
        add_generation_prompt: bool = True,
        preserve_thinking: bool = False,
    ) -> Prompt:
        """The prompt for `messages`. `max_soft_tokens` is the budget of each picture or frame not yet prepared.

        Special tokens come from the template alone: text that spells one, be it a message's, a tool's or a model's,
        stays text, but for the thinking channel in past answers, which the template strips. InputError for anything
        in the messages that cannot be read or rendered, and where the template writes another number of
        placeholders than there are media.
        """
        if not messages:
            raise InputError("there are no messages; send at least one from the user")
        media: list[Media] = []
        plain = [self._plain_message(message, media, max_soft_tokens) for message in messages]
        text = self.chat_format.render(
            plain,
            thinking=thinking,
            tools=[self._plain(tool) for tool in tools or ()],
            add_generation_prompt=add_generation_prompt,
            preserve_thinking=preserve_thinking,
        )
        return self._expanded(self.tokenizer.encode(self._with_frames(text, media)), media)

    def answer_ids(self, answer: str) -> tuple[int, ...]:
        """The ids of `answer` as the model would give it behind a prompt, with the end of its turn."""
        return (*self.tokenizer.encode(self.tokenizer.guard(answer)), self.tokenizer.special.turn_close)

    def _budget(self, asked: Budget | None) -> Budget:
        return self.max_soft_tokens if asked is None else asked

    def _plain_message(
        self, message: Mapping[str, Any], media: list[Media], max_soft_tokens: int | None
    ) -> dict[str, Any]:
        """`message` in plain JSON values with guarded text, for the template; its media are added to `media`."""
        role, content = message.get("role"), message.get("content")
        if role not in ROLES:
            raise InputError(f"a message has the role {role!r}; use one of {', '.join(ROLES)}")
        rest = {key: self._plain(value) for key, value in message.items() if key not in ("role", "content")}
        if content is None or isinstance(content, str):
            return {"role": role, "content": content and self._guarded(content, role), **rest}
        if not isinstance(content, Sequence) or isinstance(content, bytes):
            raise InputError(f"the content of a message is {type(content).__name__}; pass a string or a list of parts")
        parts = []
        for part in with_sound_tracks(content):
            part_type = part.get("type") if isinstance(part, Mapping) else type(part).__name__
            if part_type == "text" and isinstance(part.get("text"), str):
                parts.append({"type": "text", "text": self._guarded(part["text"], role)})
            elif part_type in MEDIA_TYPES and role in ROLES_WITH_MEDIA:
                media.append(self.prepare(part, max_soft_tokens))
                parts.append({"type": MEDIA_TYPES[part_type]})
            else:
                raise InputError(why_refused(part_type, role))
        return {"role": role, "content": parts, **rest}

    def _guarded(self, text: str, role: str) -> str:
        return self.tokenizer.guard(text, keep=self.tokenizer.channel_strings if role == "assistant" else ())

    def _plain(self, value: Any) -> Any:
        if value is None or isinstance(value, (bool, int, float)):
            return value
        if isinstance(value, str):
            return self.tokenizer.guard(value)
        if isinstance(value, Mapping):
            return {self._plain(key): self._plain(item) for key, item in value.items()}
        if isinstance(value, Sequence) and not isinstance(value, (bytes, bytearray)):
            return [self._plain(item) for item in value]
        raise InputError(f"a message or tool holds a {type(value).__name__}, which JSON has not; convert it to text")

    def _with_frames(self, text: str, media: Sequence[Media]) -> str:
        """`text` with a placeholder for each frame of a video: "00:00 <|video|> 00:01 <|video|>".

        It is done in the text, as the reference does it: the times may share a token with what stands around them.
        """
        placeholder = self.tokenizer.video_string
        first, *rest = text.split(placeholder)
        videos = [item.data for item in media if isinstance(item.data, Video)]
        _check_placeholders("video", len(rest), len(videos))
        written = [" ".join(f"{stamp} {placeholder}" for stamp in video.stamps) for video in videos]
        return first + "".join(frames + after for frames, after in zip(written, rest, strict=True))

    def _expanded(self, ids: Sequence[int], media: Sequence[Media]) -> Prompt:
        """Each placeholder as open, one soft token per row of its picture, sound or frame, close."""
        special = self.tokenizer.special
        around: dict[int, tuple[MediaKind, int, int]] = {
            special.image: ("image", special.image_open, special.image_close),
            special.audio: ("audio", special.audio_open, special.audio_close),
            special.video: ("video", special.image_open, special.image_close),
        }
        waiting = {
            kind: [piece for item in media if item.kind == kind for piece in item.pieces()] for kind in MEDIA_KINDS
        }
        for placeholder, (kind, _, _) in around.items():
            _check_placeholders(kind, ids.count(placeholder), len(waiting[kind]))
        following = {kind: iter(pieces) for kind, pieces in waiting.items()}
        expanded: list[int] = []
        spans: list[MediaSpan] = []
        for index in ids:
            if index not in around:
                expanded.append(index)
                continue
            kind, opening, closing = around[index]
            rows, digest = next(following[kind])
            length = rows.soft_tokens if isinstance(rows, ImagePatches) else len(rows)
            expanded.append(opening)
            spans.append(MediaSpan(kind, len(expanded), length, rows, digest))
            expanded.extend([index] * length)
            expanded.append(closing)
        return Prompt(tuple(expanded), tuple(spans), tuple(item.label for item in media))


def _check_placeholders(kind: str, written: int, attached: int) -> None:
    if written != attached:
        raise InputError(
            f"the chat template wrote {written} {kind} placeholders for {attached} attached; "
            f"use the checkpoint's own template, and put media into messages that it shows"
        )


def image_budget(path: Path) -> int:
    """`max_soft_tokens` of a processor_config.json, the released 280 where there is no such file."""
    config = read_json(path) if path.is_file() else {}
    image, audio = config.get("image_processor") or {}, config.get("feature_extractor") or {}
    asked = (
        image.get("patch_size", 16) * image.get("pooling_kernel_size", 3),
        audio.get("sampling_rate", SAMPLE_RATE_HZ),
        audio.get("audio_samples_per_token", SAMPLES_PER_FRAME),
    )
    if asked != (PATCH_SIDE_PX, SAMPLE_RATE_HZ, SAMPLES_PER_FRAME):
        raise CheckpointError(
            f"{path} asks for patches of {asked[0]} px and frames of {asked[2]} samples at {asked[1]} Hz, "
            f"not Gemma 4 12B's {PATCH_SIDE_PX} px, {SAMPLES_PER_FRAME} and {SAMPLE_RATE_HZ} Hz; use its checkpoint"
        )
    budget = image.get("max_soft_tokens", 280)
    if budget not in BUDGETS:
        raise CheckpointError(f"{path} asks for {budget!r} tokens per picture; set one of {BUDGETS}")
    return int(budget)
