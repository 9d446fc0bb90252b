"""One answer on its way to the screen or into JSON, with its figures."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from gemma_mlx.terminal.failures import Interrupt
from gemma_mlx.terminal.output import Output

if TYPE_CHECKING:
    from gemma_mlx.answer import Answer, Reply

TIMED_TOKENS = 8
"""The shortest answer whose speed is shown."""


def show_answer(answer: Answer, output: Output, interrupt: Interrupt, stream: bool = True) -> Reply:
    """Shows an answer as it comes (without `stream`: computes it) until it ends or is interrupted."""
    steps = iter(answer)
    whole = False
    try:
        for step in steps:
            if stream and step.channel == "thought":
                output.thought(step.text)
            elif stream:
                output.answer(step.text)
            if interrupt.asked:
                break
        else:
            whole = True
    finally:
        close = getattr(steps, "close", None)
        if close is not None:
            close()
        if stream:
            output.end_answer(whole)
    return answer.reply


def prefill_progress(output: Output, interrupt: Interrupt) -> Callable[[int, int], None]:
    """Shows how far the prompt has been read; between two chunks, an interrupt stops it."""

    def show(done: int, of: int) -> None:
        if interrupt.asked:
            raise KeyboardInterrupt
        output.status(f"reading the prompt: {done:,} of {of:,} tokens" if done < of else "")

    return show


def speed(reply: Reply) -> str | None:
    """Tokens per second; None for so few tokens that the clock says nothing (some are computed ahead)."""
    return f"{reply.generation_tps:.1f} tokens/s" if reply.generated_tokens >= TIMED_TOKENS else None


def figures(reply: Reply) -> str:
    """The line of statistics under an answer."""
    counts = {"image": reply.image_tokens, "video": reply.video_tokens, "audio": reply.audio_tokens}
    media = [f"{count:,} {kind}" for kind, count in counts.items() if count]
    drafted = f" ({reply.accepted_tokens:,} of {reply.drafted_tokens:,} drafted accepted)"
    return ", ".join(
        [
            f"{reply.prompt_tokens:,} prompt tokens" + (f" ({', '.join(media)})" if media else ""),
            *([f"{reply.reused_tokens:,} of them re-used"] if reply.reused_tokens else []),
            f"{reply.generated_tokens:,} generated"
            + (f" ({reply.thought_tokens:,} of them thought)" if reply.thought_tokens else "")
            + (f" at {shown}" if (shown := speed(reply)) else "")
            + (drafted if reply.drafted_tokens else ""),
            f"first after {reply.time_to_first_token_s:.2f} s",
            f"peak memory {reply.peak_memory_bytes / 1e9:.2f} GB",
        ]
    )


def cut_note(reply: Reply, max_tokens: int) -> str | None:
    """What to say of an answer that did not come to its end by itself."""
    if reply.finish_reason == "closed":
        return f"the answer was brought to its end to fit {max_tokens:,} tokens; -n sets another limit"
    if reply.finish_reason != "length":
        return None
    if reply.generated_tokens < max_tokens:
        return f"the answer was cut after {reply.generated_tokens:,} tokens: the context is full"
    return f"the answer was cut after {max_tokens:,} tokens; -n sets another limit"


def as_object(reply: Reply, *, thinking: bool, logprobs: bool) -> dict[str, Any]:
    """What `--json` prints of an answer."""
    found: dict[str, Any] = {**vars(reply)}
    if not thinking:
        del found["thought"]
    if not logprobs:
        del found["logprobs"]
    return found
