"""Whether the window is used: a number hidden in a long text, asked for at its end.

The text is made of sentences that mean nothing together and hardly ever repeat, cut to the context's last token with
the model's own tokenizer. The number stands at a depth of it, from 0 (the beginning) to 1. Greedy, one answer per cell.
"""

from __future__ import annotations

import random
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from gemma_mlx.errors import GemmaError
from gemma_mlx.gemma import Gemma
from gemma_mlx.inputs.prompt import PromptBuilder

ANSWER_TOKENS = 32
SENTENCE_TOKENS = 6
"""Each has at least so many, in any tokenizer: it has more words."""
QUESTION = "What number opens the green gate? Answer with the number and nothing else."
_WHO = "the baker,a sailor,my aunt,the mayor,a gardener,the old teacher,one of the twins,the postman,a nurse,the miller"
_DID = "counted,painted,sold,carried,forgot,found,repaired,borrowed,cleaned,described,measured,hid"
_WHAT = "lanterns,baskets of plums,wooden chairs,letters,clay pots,blue ribbons,maps,candles,boats,coins,bells,coats"
_WHERE = "by the river,behind the mill,in the market,under the bridge,near the station,on the roof,at the harbour"
_WHEN = "on Monday,before lunch,last winter,in the rain,at dawn,after the concert,one quiet evening,in early spring"


@dataclass(frozen=True)
class Needle:
    """One cell: whether the number that lay at `depth` of `context_tokens` came back."""

    context_tokens: int
    """Prompt and room for the answer together."""
    depth: float
    prompt_tokens: int | None
    found: bool
    answer: str
    time_s: float
    error: str | None = None
    """Why there is no answer."""


def search(gemma: Gemma, contexts: Sequence[int], depths: Sequence[float], seed: int) -> Iterator[Needle]:
    """Yields a `Needle` for each of `contexts` at each of `depths`."""
    for context in contexts:
        for depth in depths:
            chance = random.Random(f"{seed} {context} {depth}")
            number = str(chance.randrange(100_000, 1_000_000))
            messages = haystack(gemma.prompts, context - ANSWER_TOKENS, depth, number, chance)
            started_s = time.perf_counter()
            try:
                reply = gemma.reply(messages, sampling=gemma.sampling(temperature=0), max_tokens=ANSWER_TOKENS)
            except GemmaError as error:
                yield Needle(context, depth, None, False, "", time.perf_counter() - started_s, str(error))
                continue
            took_s = time.perf_counter() - started_s
            yield Needle(context, depth, reply.prompt_tokens, number in reply.text, reply.text, took_s)


def shortest_context(prompts: PromptBuilder) -> int:
    """What the question, the sentence with the number and the answer need without any text around them."""
    return len(prompts.build(_messages("", "999999", 0))) + ANSWER_TOKENS


def haystack(
    prompts: PromptBuilder, tokens: int, depth: float, number: str, chance: random.Random
) -> list[dict[str, str]]:
    """Messages whose prompt has `tokens` tokens, or a few less where no cut of the text gives exactly that many."""
    tokenizer = prompts.tokenizer
    ids = tokenizer.encode(_filler(tokens // SENTENCE_TOKENS + 1, chance))

    def cut(take: int) -> list[dict[str, str]]:
        return _messages(tokenizer.decode(ids[:take]), number, depth)

    take = best = 0
    for _ in range(24):
        missing = tokens - len(prompts.build(cut(take)))
        if missing >= 0:
            best = max(best, take)
        if missing == 0:
            break
        take = min(len(ids), max(0, take + missing))
    return cut(best)


def _messages(text: str, number: str, depth: float) -> list[dict[str, str]]:
    """A turn of `text` with the number's sentence after the one that ends last before `depth` of it."""
    place = text.rfind(". ", 0, int(len(text) * depth) + 1) + 1  # 0 where no sentence ends before
    needle = f"The number that opens the green gate is {number}."
    told = " ".join(part for part in (text[:place], needle, text[place:].strip()) if part)
    return [{"role": "user", "content": f"{told}\n\n{QUESTION}"}]


def _filler(sentences: int, chance: random.Random) -> str:
    """So many sentences, each of at least eight words."""
    parts = [words.split(",") for words in (_WHEN, _WHO, _DID, _WHAT, _WHERE)]
    made = []
    for _ in range(sentences):
        when, who, did, what, where = (chance.choice(words) for words in parts)
        made.append(f"{when[0].upper()}{when[1:]} {who} {did} {chance.randrange(2, 99)} {what} {where}.")
    return " ".join(made)
