"""A checkpoint folder without weights: a small byte-fallback tokenizer with Gemma's special tokens, and a template."""

from __future__ import annotations

import json
from pathlib import Path

from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers

SPECIALS = (
    *("<pad>", "<eos>", "<bos>", "<unk>", "<mask>", "<|tool>", "<tool|>", "<|tool_call>", "<tool_call|>"),
    *("<|tool_response>", "<tool_response|>", '<|"|>', "<|think|>", "<|channel>", "<channel|>", "<|turn>", "<turn|>"),
    *("<|image>", "<|audio>", "<|image|>", "<|audio|>", "<image|>", "<audio|>", "<|video|>"),
)
LISTED_AS_ORDINARY = ("<turn|>", "<|video|>")
MERGES = (("▁", "t"), ("h", "e"), ("▁t", "he"), ("l", "l"), ("he", "ll"), ("hell", "o"), ("<", "|"), ("|", ">"))

TEMPLATE = """
{{- bos_token -}}
{%- for message in messages -%}
    {{- '<|turn>' + ('model' if message.role == 'assistant' else message.role) + '\\n' -}}
    {%- if message.content is string -%}
        {{- (message.content.split('<channel|>')[-1] if message.role == 'assistant' else message.content) | trim -}}
    {%- else -%}
        {%- for part in message.content or [] -%}
            {%- if part.type == 'text' %}{{ part.text | trim }}
            {%- elif part.type == 'image' %}{{ '<|image|>' }}
            {%- elif part.type == 'audio' %}{{ '<|audio|>' }}
            {%- elif part.type == 'video' %}{{ '<|video|>' }}
            {%- endif -%}
        {%- endfor -%}
    {%- endif -%}
    {%- for call in message.tool_calls or [] -%}
        {{- '<|tool_call>call:' + call.function.name + (call.function.arguments | tojson) + '<tool_call|>' -}}
    {%- endfor -%}
    {{- '<turn|>\\n' -}}
{%- endfor -%}
{%- if add_generation_prompt %}{{ '<|turn>model\\n' }}{% endif -%}
"""

NAMES = {
    "bos_token": "<bos>",
    "eos_token": {"content": "<eos>", "special": True},
    "eot_token": "<turn|>",
    "image_token": "<|image|>",
    "boi_token": "<|image>",
    "eoi_token": "<image|>",
    "audio_token": "<|audio|>",
    "boa_token": "<|audio>",
    "eoa_token": "<audio|>",
    "extra_special_tokens": ["<|video|>"],
}


def build_tokenizer() -> Tokenizer:
    letters = "▁\n<>|!?.,:;'\"/_()0123456789" + "abcdefghijklmnopqrstuvwxyz" + "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
    words = [*SPECIALS, *(f"<0x{byte:02X}>" for byte in range(256)), *letters, *(a + b for a, b in MERGES)]
    vocabulary = {word: index for index, word in enumerate(words)}
    tokenizer = Tokenizer(
        models.BPE(vocab=vocabulary, merges=list(MERGES), unk_token="<unk>", byte_fallback=True, fuse_unk=True)
    )
    tokenizer.normalizer = normalizers.Replace(" ", "▁")
    tokenizer.pre_tokenizer = pre_tokenizers.Split(" ", "merged_with_previous")
    tokenizer.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    marked = [text for text in SPECIALS if text not in LISTED_AS_ORDINARY]
    tokenizer.add_special_tokens([AddedToken(text, special=True, normalized=False) for text in marked])
    tokenizer.add_tokens([AddedToken(text, special=False, normalized=False) for text in LISTED_AS_ORDINARY])
    return tokenizer


def build_byte_level_tokenizer() -> Tokenizer:
    """Every token is a string of bytes, each written as one letter; some merges cut or join characters."""
    letters = pre_tokenizers.ByteLevel.alphabet()
    emoji, accent = byte_letters("😀"), byte_letters("é")
    merges = [("h", "e"), (emoji[0], emoji[1]), (emoji[3], "h"), (accent[1], emoji[0]), ("a", accent[0])]
    words = [*SPECIALS, *sorted(letters), *(a + b for a, b in merges)]
    tokenizer = Tokenizer(models.BPE(vocab={word: index for index, word in enumerate(words)}, merges=merges))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(text, special=True, normalized=False) for text in SPECIALS])
    return tokenizer


def byte_letters(text: str) -> str:
    """The letters that a byte-level tokenizer writes for the bytes of `text`."""
    [(letters, _)] = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False).pre_tokenize_str(text)
    return str(letters)


def write_small_checkpoint(folder: Path, tokenizer: Tokenizer | None = None) -> None:
    (tokenizer or build_tokenizer()).save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps(NAMES), encoding="utf-8")
    (folder / "chat_template.jinja").write_text(TEMPLATE, encoding="utf-8")
    processor = {"image_processor": {"max_soft_tokens": 70}}
    (folder / "processor_config.json").write_text(json.dumps(processor), encoding="utf-8")
