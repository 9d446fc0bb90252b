"""Messages, in the role/content form of chat APIs -> token ids with room for the media, and the media."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Literal, TypedDict

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from gemma_mlx.config import read_json
from gemma_mlx.errors import CheckpointError, InputError
from gemma_mlx.inputs.chat_format import ChatFormat
from gemma_mlx.inputs.image import BUDGETS, PATCH_SIDE_PX, ImagePatches
from gemma_mlx.inputs.media import MEDIA_TYPES, Media, prepare_media
from gemma_mlx.inputs.tokenizer import Tokenizer
from gemma_mlx.inputs.waveform import SAMPLE_RATE_HZ, SAMPLES_PER_FRAME

ROLES = ("system", "developer", "user", "assistant", "tool")
_ROLES_WITH_MEDIA = ("user", "tool")


class TextPart(TypedDict):
    type: Literal["text"]
    text: str


class ImagePart(TypedDict):
    type: Literal["image"]
    image: Path | str | bytes | BinaryIO | Image.Image | Media


class ImageUrl(TypedDict):
    url: str  # data:, file: or a path; http and https are refused


class ImageUrlPart(TypedDict):
    type: Literal["image_url"]
    image_url: ImageUrl


class AudioPart(TypedDict):
    type: Literal["audio"]
    audio: Path | str | bytes | BinaryIO | tuple[NDArray[Any], int] | Media


class InputAudio(TypedDict, total=False):
    data: str  # base64
    format: str  # not needed: the data says itself what it is


class InputAudioPart(TypedDict):
    type: Literal["input_audio"]
    input_audio: InputAudio


Part = TextPart | ImagePart | ImageUrlPart | AudioPart | InputAudioPart


class _MessageFields(TypedDict):
    role: Literal["system", "developer", "user", "assistant", "tool"]


class Message(_MessageFields, total=False):
    """One message. Keys beyond these reach the chat template as they are."""

    content: str | Sequence[Part] | None
    reasoning: str
    tool_calls: Sequence[Mapping[str, Any]]
    tool_call_id: str
    name: str


@dataclass(frozen=True, eq=False)
class MediaSpan:
    """Where the rows of one picture or sound go: `ids[start : start + length]` are its soft tokens."""

    kind: Literal["image", "audio"]
    start: int
    length: int
    media: ImagePatches | NDArray[np.float32]
    digest: str
    label: str


@dataclass(frozen=True, eq=False)
class Prompt:
    """Token ids, and the media whose rows take the place of their soft tokens, in the order of the ids."""

    ids: tuple[int, ...]
    spans: tuple[MediaSpan, ...] = ()

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def image_tokens(self) -> int:
        return sum(span.length for span in self.spans if span.kind == "image")

    @property
    def audio_tokens(self) -> int:
        return sum(span.length for span in self.spans if span.kind == "audio")


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

    def prepare(self, part: Mapping[str, Any], max_soft_tokens: int | None = None) -> Media:
        """The picture or sound of `part`, to stand in the part in place of its file, for use in many turns."""
        return prepare_media(part, self._budget(max_soft_tokens))

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
        """The prompt for `messages`. `max_soft_tokens` is the budget of each picture not yet prepared.

        Special tokens come from the template alone: text that spells one, be it a message's, a tool's or a model's,
        stays text, but for the thinking channel in past answers, which the template strips. InputError for anything
        in the messages that cannot be read or rendered, and where the template writes another number of
        placeholders than there are media.
        """
        if not messages:
            raise InputError("there are no messages; send at least one from the user")
        media: list[Media] = []
        budget = self._budget(max_soft_tokens)
        plain = [self._plain_message(message, media, budget) for message in messages]
        text = self.chat_format.render(
            plain,
            thinking=thinking,
            tools=[self._plain(tool) for tool in tools or ()],
            add_generation_prompt=add_generation_prompt,
            preserve_thinking=preserve_thinking,
        )
        return self._expanded(self.tokenizer.encode(text), media)

    def answer_ids(self, answer: str) -> tuple[int, ...]:
        """The ids of `answer` as the model would give it behind a prompt, with the end of its turn."""
        return (*self.tokenizer.encode(self.tokenizer.guard(answer)), self.tokenizer.special.turn_close)

    def _budget(self, asked: int | None) -> int:
        return self.max_soft_tokens if asked is None else asked

    def _plain_message(self, message: Mapping[str, Any], media: list[Media], budget: int) -> dict[str, Any]:
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
        for part in content:
            part_type = part.get("type") if isinstance(part, Mapping) else type(part).__name__
            if part_type == "text" and isinstance(part.get("text"), str):
                parts.append({"type": "text", "text": self._guarded(part["text"], role)})
            elif part_type in MEDIA_TYPES and role in _ROLES_WITH_MEDIA:
                media.append(prepare_media(part, budget))
                parts.append({"type": MEDIA_TYPES[part_type]})
            else:
                raise InputError(_why_refused(part_type, role))
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

    def _expanded(self, ids: Sequence[int], media: Sequence[Media]) -> Prompt:
        """Each placeholder as open, one soft token per row of its medium, close."""
        special = self.tokenizer.special
        around = {
            special.image: ("image", special.image_open, special.image_close),
            special.audio: ("audio", special.audio_open, special.audio_close),
        }
        for placeholder, (kind, _, _) in around.items():
            written, attached = ids.count(placeholder), sum(item.kind == kind for item in media)
            if written != attached:
                raise InputError(
                    f"the chat template wrote {written} {kind} placeholders for {attached} attached; "
                    f"use the checkpoint's own template, and put media into messages that it shows"
                )
        waiting = {kind: iter([item for item in media if item.kind == kind]) for kind in ("image", "audio")}
        expanded: list[int] = []
        spans: list[MediaSpan] = []
        for index in ids:
            if index not in around:
                expanded.append(index)
                continue
            kind, opening, closing = around[index]
            item = next(waiting[kind])
            expanded.append(opening)
            spans.append(MediaSpan(item.kind, len(expanded), item.soft_tokens, item.data, item.digest, item.label))
            expanded.extend([index] * item.soft_tokens)
            expanded.append(closing)
        return Prompt(tuple(expanded), tuple(spans))


def _why_refused(part_type: object, role: str) -> str:
    if part_type in MEDIA_TYPES:
        return f"a message of role {role!r} holds a part of type {part_type!r}; attach media to a user message"
    if part_type in ("video", "video_url"):
        return "video is not read by this version; extract frames and attach them as images"
    if part_type == "text":
        return "a text part holds no string under 'text'; put the text there"
    return f"a message part has the type {part_type!r}; use one of text, {', '.join(MEDIA_TYPES)}"


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
