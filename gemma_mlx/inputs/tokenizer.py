"""Text <-> token ids, with special tokens that only the chat template can write.

A special token is a string such as `<turn|>`. Tokenizers read it as the token wherever it stands, so a person (or a
web page that a person pastes) could end a turn by typing it. Here, text of others goes through `guard` before it is
rendered into the template; `encode` reads guarded strings as ordinary characters.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tokenizers import AddedToken
from tokenizers import Tokenizer as Vocabulary

from gemma_mlx.config import read_json
from gemma_mlx.errors import CheckpointError, InputError

# A noncharacter: Unicode keeps it for use inside a program, and no special token holds it.
_MARK = "\ufdd0"
_REPLACEMENT = "\ufffd"  # Stands in decoded text for bytes that are no character, or not yet.
_CUT_CHARACTER_BYTES = 3  # The most that UTF-8 has of a character before its last byte, so the most tokens as well.

# Field of SpecialIds -> its name in tokenizer_config.json, and the released string where the config has no such name.
_NAMES = {
    "bos": ("bos_token", "<bos>"),
    "eos": ("eos_token", "<eos>"),
    "turn_open": ("sot_token", "<|turn>"),
    "turn_close": ("eot_token", "<turn|>"),
    "channel_open": ("soc_token", "<|channel>"),
    "channel_close": ("eoc_token", "<channel|>"),
    "think": ("think_token", "<|think|>"),
    "tool_response_open": ("str_token", "<|tool_response>"),
    "image": ("image_token", "<|image|>"),
    "image_open": ("boi_token", "<|image>"),
    "image_close": ("eoi_token", "<image|>"),
    "audio": ("audio_token", "<|audio|>"),
    "audio_open": ("boa_token", "<|audio>"),
    "audio_close": ("eoa_token", "<audio|>"),
    "video": ("video_token", "<|video|>"),
}


@dataclass(frozen=True)
class SpecialIds:
    """Ids of the tokens that the runtime itself looks at or writes. The comment gives the released id."""

    bos: int  # 2
    eos: int  # 1
    turn_open: int  # 105
    turn_close: int  # 106
    channel_open: int  # 100
    channel_close: int  # 101
    think: int  # 98
    tool_response_open: int  # 50
    image: int  # 258880, one per soft token, between open and close
    image_open: int  # 255999
    image_close: int  # 258882
    audio: int  # 258881
    audio_open: int  # 256000
    audio_close: int  # 258883
    video: int  # 258884, one per soft token of a frame, between open and close of an image


class Tokenizer:
    """The tokenizer of a checkpoint folder: tokenizer.json, and names of special tokens from tokenizer_config.json."""

    def __init__(self, folder: Path) -> None:
        """Read both files. CheckpointError where tokenizer.json is missing or damaged, or lacks a token we need."""
        self._vocabulary = _read_vocabulary(folder / "tokenizer.json")
        config_path = folder / "tokenizer_config.json"
        config = read_json(config_path) if config_path.is_file() else {}
        strings = named_tokens(config)
        # Some checkpoints list a control token as an ordinary added one; marked special, it can be switched off.
        extra = config.get("extra_special_tokens") or []
        control = {*strings.values(), *(text for text in extra if isinstance(text, str))}
        known = sorted(text for text in control if self._vocabulary.token_to_id(text) is not None)
        self._vocabulary.add_special_tokens([AddedToken(text, special=True, normalized=False) for text in known])
        # For good: `encode` alone finds special strings, as it alone knows which ones are guarded.
        self._vocabulary.encode_special_tokens = True

        added = self._vocabulary.get_added_tokens_decoder()
        self._special_ids = {token.content: index for index, token in added.items() if token.special}
        longest_first = sorted(self._special_ids, key=len, reverse=True)
        first = "".join(sorted({re.escape(text[0]) for text in longest_first}))
        self._special_string = re.compile("(" + "|".join(map(re.escape, longest_first)) + ")")
        self._first_character = re.compile(f"[{first}]")
        self._marked_character = re.compile(f"([{first}]){_MARK}")

        self.special = SpecialIds(
            **{field: self.token_id(strings.get(name, released)) for field, (name, released) in _NAMES.items()}
        )
        self.channel_strings = tuple(strings.get(*_NAMES[field]) for field in ("channel_open", "channel_close"))
        self.video_string = strings.get(*_NAMES["video"])
        self._silent_ids = frozenset(self._special_ids.values())
        spelled = (self._vocabulary.token_to_id(f"<0x{byte:02X}>") for byte in range(256))
        self._byte_ids = frozenset(index for index in spelled if index is not None)

    @property
    def vocab_size(self) -> int:
        """Number of tokens, special ones included."""
        return int(self._vocabulary.get_vocab_size(with_added_tokens=True))

    @property
    def highest_id(self) -> int:
        """The largest id; there may be holes below it."""
        return max(self._vocabulary.get_vocab(with_added_tokens=True).values())

    def to_json(self) -> str:
        """The vocabulary as a tokenizer.json, with every control token marked special."""
        return str(self._vocabulary.to_str())

    def token_id(self, text: str) -> int:
        """Id of the token spelled `text`. CheckpointError where the vocabulary has none."""
        index = self._vocabulary.token_to_id(text)
        if index is None:
            raise CheckpointError(
                f"the tokenizer has no token {text!r}; use a Gemma 4 checkpoint with its own tokenizer"
            )
        return int(index)

    def is_byte(self, index: int) -> bool:
        """Whether the token stands for one byte of a character that the vocabulary does not hold whole."""
        return index in self._byte_ids

    def is_silent(self, index: int) -> bool:
        """Whether `decode` leaves this id out: special tokens, and ids that no token has."""
        return index in self._silent_ids or self._vocabulary.id_to_token(index) is None

    def guard(self, text: str, keep: Sequence[str] = ()) -> str:
        """`text` such that `encode` reads every special string in it as ordinary characters, but for those in `keep`.

        A mark goes behind each character that can begin a special string, so that no special string can form across
        the seams of the template either. Trimming, splitting and comparing in a template work as before.
        """
        kept = re.compile("|".join(map(re.escape, keep))) if keep else None

        def mark(match: re.Match[str]) -> str:
            return match[0] if kept and kept.match(text, match.start()) else match[0] + _MARK

        return self._first_character.sub(mark, text)

    def encode(self, text: str) -> list[int]:
        """Ids of `text`: special strings as their token unless guarded. Nothing is added (the template writes <bos>).

        InputError where `text` is not valid Unicode.
        """
        ids: list[int] = []
        for piece in self._special_string.split(text):
            if piece in self._special_ids:
                ids.append(self._special_ids[piece])
            elif piece:
                ids.extend(self._encode_ordinary(self._marked_character.sub(r"\1", piece)))
        return ids

    def decode(self, ids: Sequence[int], skip_special: bool = True) -> str:
        """Text of `ids`. Ids outside the vocabulary have no text."""
        return str(self._vocabulary.decode(list(ids), skip_special_tokens=skip_special))

    def _encode_ordinary(self, text: str) -> list[int]:
        try:
            return list(self._vocabulary.encode(text, add_special_tokens=False).ids)
        except TypeError as error:  # A lone surrogate, from bytes that were read as text.
            raise InputError("the text holds bytes that are not valid Unicode; save it as UTF-8") from error


class TextStream:
    """Ids one by one -> pieces of text that never cut a character; together they equal `decode` of all the ids.

    A character that the vocabulary does not hold comes as a run of byte tokens. Whether the run is valid shows only
    where it ends, so its text is given with the token after it, or by `flush`. Where every token is a string of bytes
    (byte-level BPE), a U+FFFD at the end may be the start of a character, and waits for the token after it. A combining
    mark or the next part of a joined emoji is a character of its own here. The work per token does not depend on the
    length of the text.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._window: list[int] = []  # At least the last token: a decoder may treat the first of a text differently.
        self._given = 0  # Characters of the window's text that need not be given again.

    def push(self, index: int) -> str:
        """The text that is certain now, often "" within a run of bytes. Special tokens have no text."""
        if self._tokenizer.is_silent(index):
            return ""
        self._window.append(index)
        if self._tokenizer.is_byte(index):
            return ""
        text = self._tokenizer.decode(self._window)
        if not text.endswith(_REPLACEMENT):
            return self._give(text)
        piece = text[self._given : -1]
        self._window = self._window[-_CUT_CHARACTER_BYTES:]
        self._given = len(self._tokenizer.decode(self._window)) - 1
        return piece

    def flush(self) -> str:
        """The text still held. A character that never became complete shows as U+FFFD, as in `decode`."""
        return self._give(self._tokenizer.decode(self._window))

    def _give(self, text: str) -> str:
        """What is new in `text`, the window's, which ends with a whole character or is not to be waited for."""
        piece = text[self._given :]
        self._window = self._window[-1:]
        self._given = len(self._tokenizer.decode(self._window))
        return piece


def named_tokens(config: Mapping[str, Any]) -> dict[str, str]:
    """`bos_token`, `image_token` and the like of a tokenizer_config.json, by name."""
    named = {}
    for name, value in config.items():
        text = value.get("content") if isinstance(value, dict) else value
        if name.endswith("_token") and isinstance(text, str) and text:
            named[name] = text
    return named


def _read_vocabulary(path: Path) -> Vocabulary:
    if not path.is_file():
        raise CheckpointError(f"{path.parent} has no tokenizer.json; copy it from the checkpoint into that folder")
    try:
        return Vocabulary.from_file(str(path))
    except Exception as error:  # The library raises plain Exception.
        reason = " ".join(str(error).split())
        raise CheckpointError(f"cannot read {path} ({reason}); copy it from the checkpoint again") from error
