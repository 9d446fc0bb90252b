"""The miniature's tokenizer: byte-pair merges of the Gemma kind, with every word of the training texts one token."""

from __future__ import annotations

import re
from collections import Counter
from itertools import pairwise

from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers

SPECIAL_TOKENS = (
    "<pad>",
    "<eos>",
    "<bos>",
    "<unk>",
    "<mask>",
    "<|tool>",
    "<tool|>",
    "<|tool_call>",
    "<tool_call|>",
    "<|tool_response>",
    "<tool_response|>",
    '<|"|>',
    "<|think|>",
    "<|channel>",
    "<channel|>",
    "<|turn>",
    "<turn|>",
    "<|image>",
    "<|audio>",
    "<|image|>",
    "<|audio|>",
    "<image|>",
    "<audio|>",
    "<|video|>",
)
SPECIAL_IDS = {token: i for i, token in enumerate(SPECIAL_TOKENS)}
CHARACTERS = ["▁", "\n", *(chr(c) for c in range(33, 127)), *"äöüßéèêñçàáíóúô"]
WORD = re.compile("▁?[A-Za-z_]+")


def build_tokenizer(texts: list[str]) -> Tokenizer:
    """A tokenizer with one token for each word of `texts`; vocabulary padded to a multiple of 64.

    Digits and capital letters in a row stay single tokens, so that read and heard text is spelled out.
    """
    words = sorted({w for text in texts for w in WORD.findall(text.replace(" ", "▁")) if _kept_whole(w)})
    merges = word_merges(words)
    vocabulary = dict(SPECIAL_IDS)
    for token in [*(f"<0x{byte:02X}>" for byte in range(256)), *CHARACTERS, *(a + b for a, b in merges)]:
        vocabulary.setdefault(token, len(vocabulary))
    while len(vocabulary) % 64:
        vocabulary[f"<unused{len(vocabulary)}>"] = len(vocabulary)
    tokenizer = Tokenizer(
        models.BPE(vocab=vocabulary, merges=merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True)
    )
    tokenizer.normalizer = normalizers.Replace(" ", "▁")
    tokenizer.pre_tokenizer = pre_tokenizers.Split(" ", "merged_with_previous")
    tokenizer.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in SPECIAL_TOKENS])
    return tokenizer


def _kept_whole(word: str) -> bool:
    letters = word.removeprefix("▁")
    return (len(letters) > 1 and not letters.isupper()) or word in ("▁a", "▁I")


def word_merges(words: list[str]) -> list[tuple[str, str]]:
    """Merges, most shared first, that turn each of `words` into one token."""
    pieces = {word: list(word) for word in words}
    merges: list[tuple[str, str]] = []
    while True:
        counts = Counter(pair for parts in pieces.values() for pair in pairwise(parts))
        if not counts:
            return merges
        best = max(counts, key=lambda pair: (counts[pair], pair))
        merges.append(best)
        for word, parts in pieces.items():
            pieces[word] = _merged(parts, best)


def _merged(parts: list[str], pair: tuple[str, str]) -> list[str]:
    out: list[str] = []
    for part in parts:
        if out and (out[-1], part) == pair and not _taken(out, pair):
            out[-1] += part
        else:
            out.append(part)
    return out


def _taken(out: list[str], pair: tuple[str, str]) -> bool:
    """Whether the last piece is itself a merge of this pass (a pair of equal pieces is merged left to right)."""
    return pair[0] == pair[1] and len(out[-1]) != len(pair[0])
