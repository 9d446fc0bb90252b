"""What 8-bit rows on the full layers cost in exactness, against rows in the computing type.

`answers_error` teacher-forces the greedy answers of a model over both kinds of rows; `layer_error` takes one full layer
of any size with random weights and rows. `python -m benchmarks.kv_error CONFIG_FOLDER` prints one line of JSON: for the
miniature over its samples, and for a layer as CONFIG_FOLDER/config.json has it.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
from numpy.typing import NDArray

from benchmarks.divergence import kl_divergence, log_softmax
from gemma_mlx.config import TextConfig, read_config
from gemma_mlx.decoding.prefill import forward_chunk
from gemma_mlx.decoding.session import Session
from gemma_mlx.gemma import Gemma, Messages
from gemma_mlx.home import miniature_folder
from gemma_mlx.loader import load
from gemma_mlx.model.cache import FullCache
from gemma_mlx.model.decoder import FullAttention
from gemma_mlx.model.masks import QueryBlock
from gemma_mlx.model.quantized_cache import BITS, Packed, PackedRows, QuantizedCache
from gemma_mlx.model.rope import Rope
from gemma_mlx.model.shared_rows import make_rows
from gemma_mlx.soft_tokens import soft_tokens
from gemma_mlx.tasks.captioning import PROMPT, READ_PROMPT
from gemma_mlx.tasks.message import user_message
from gemma_mlx.tasks.transcription import transcription_prompt

SAMPLES = Path(__file__).parents[1] / "assets" / "samples"


@dataclass(frozen=True)
class AnswersError:
    """Over the positions that predict an answer's tokens, and over all of the vocabulary at each of them."""

    answers: int
    same_answers: int
    """How many greedy answers are the same, token for token."""
    positions: int
    top1_agreement: float
    mean_kl: float
    """KL divergence from unquantized to quantized, in nats."""
    largest_logprob_difference: float
    mean_logprob_difference: float


@dataclass(frozen=True)
class LayerError:
    """Root mean squares of the differences, as parts of the root mean squares of what they are differences of."""

    tokens: int
    rows: float
    scores: float
    output: float
    largest_score_difference: float


def answers_error(gemma: Gemma, conversations: Sequence[Messages], max_tokens: int = 64) -> AnswersError:
    """Compares 8-bit rows with unquantized ones over the greedy answers to `conversations`."""
    greedy, same, pairs = gemma.sampling(temperature=0.0), 0, []
    for messages in conversations:
        plain, packed = (
            gemma.reply(messages, sampling=greedy, max_tokens=max_tokens, session=Session(gemma.model, kv_bits=kv_bits))
            for kv_bits in (None, BITS)
        )
        same += plain.tokens == packed.tokens
        pairs.append([_logprobs(gemma, messages, plain.tokens, kv_bits) for kv_bits in (None, BITS)])
    wanted, found = (np.concatenate(side) for side in zip(*pairs, strict=True))  # [positions, V] each
    differences = np.abs(wanted - found)
    return AnswersError(
        answers=len(conversations),
        same_answers=same,
        positions=len(wanted),
        top1_agreement=float((wanted.argmax(-1) == found.argmax(-1)).mean()),
        mean_kl=float(kl_divergence(wanted, found).mean()),
        largest_logprob_difference=float(differences.max()),
        mean_logprob_difference=float(differences.mean()),
    )


def _logprobs(gemma: Gemma, messages: Messages, answer: Sequence[int], kv_bits: int | None) -> NDArray[np.float64]:
    """The log-probabilities [positions, V] at each place of `answer`, in one pass."""
    prompt = gemma.prompts.build(gemma.prepare(messages))
    ids = [*prompt.ids, *answer[:-1]]
    caches = gemma.model.make_caches(kv_bits)
    hidden = forward_chunk(gemma.model, caches, ids, soft_tokens(gemma.model, prompt.spans), len(ids))
    return log_softmax(np.array(gemma.model.logits(hidden[0, len(prompt) - 1 :]).astype(mx.float32)))


def layer_error(text: TextConfig, tokens: int, *, score_spread: float = 4.0, chunk_tokens: int = 16) -> LayerError:
    """Compares both kinds of rows on one full layer of `text` with random weights, in float32.

    The cache is filled with `tokens` random rows, without a prefill; then a chunk of random inputs goes through the
    layer. Scores have a standard deviation of `score_spread`.
    """
    mx.random.seed(0)
    dims, rotated_dims, kv_heads = text.global_head_dim, text.rotated_dims, text.num_global_key_value_heads
    attention = FullAttention(text)
    attention.q_norm.weight = mx.full((dims,), score_spread / dims**0.5)
    normed = mx.fast.rms_norm(mx.random.normal((1, kv_heads, tokens, dims)), None, text.rms_norm_eps)
    turned = Rope(rotated_dims, text.full_rope_theta, dims)(normed[..., :rotated_dims], 0)
    rows = make_rows(normed, turned)
    plain, packed = FullCache(), QuantizedCache(dims, rotated_dims)
    plain.update(rows)
    quantized = dequantized(packed.update(rows))
    queries = mx.random.normal((1, kv_heads, chunk_tokens, dims)) * score_spread / dims**0.5
    scores = queries @ rows[..., :dims].swapaxes(-1, -2)
    scores_found = queries @ quantized[..., :dims].swapaxes(-1, -2)
    x = mx.random.normal((1, chunk_tokens, text.hidden_size))
    blocks = [QueryBlock(0, chunk_tokens, 0, tokens + chunk_tokens, "causal")]
    output, output_found = (attention(x, cache, blocks) for cache in (plain, packed))
    return LayerError(
        tokens=tokens,
        rows=_relative(rows, quantized),
        scores=_relative(scores, scores_found),
        output=_relative(output, output_found),
        largest_score_difference=float(np.abs(np.array(scores - scores_found)).max()),
    )


def dequantized(rows: PackedRows) -> mx.array:
    """The rows [B, K, S, D + R] that `rows` stand for, in float32."""

    def unpacked(part: Packed) -> mx.array:
        scales, biases = part.scales.astype(mx.float32), part.biases.astype(mx.float32)
        return mx.dequantize(part.codes, scales, biases, group_size=rows.group_size, bits=BITS)

    return mx.concatenate([unpacked(part) for part in (rows.rotated, rows.shared, rows.raw)], axis=-1)


def _relative(wanted: mx.array, found: mx.array) -> float:
    a, b = (np.array(array, np.float64) for array in (wanted, found))
    return float(np.sqrt(((a - b) ** 2).mean() / (a**2).mean()))


def sample_conversations(each: int | None = None) -> list[list[dict[str, Any]]]:
    """What the miniature is asked about the sample pictures and sounds; `each` limits how many of a kind."""
    table = json.loads((SAMPLES / "samples.json").read_text(encoding="utf-8"))["samples"]
    found = []
    for task, text in (("caption", PROMPT), ("read", READ_PROMPT), ("transcribe", transcription_prompt())):
        for file in [SAMPLES / row["file"] for row in table if row["task"] == task][:each]:
            found.append([user_message(text, sounds=[file]) if task == "transcribe" else user_message(text, [file])])
    return found


def main() -> None:
    figures: dict[str, Any] = {"miniature": asdict(answers_error(load(miniature_folder()), sample_conversations()))}
    for folder in sys.argv[1:]:
        text = read_config(Path(folder)).text
        spreads = {spread: asdict(layer_error(text, 4096, score_spread=spread)) for spread in (1.0, 4.0, 16.0)}
        figures["layer_by_score_spread"] = spreads
    sys.stdout.write(json.dumps(figures) + "\n")


if __name__ == "__main__":
    main()
