"""gemma-mlx chat: a conversation."""

from __future__ import annotations

import sys
from pathlib import Path

from gemma_mlx.errors import UsageError
from gemma_mlx.terminal import options as flag
from gemma_mlx.terminal.failures import exit_codes, show_warnings_in_one_line
from gemma_mlx.terminal.keyboard import piped_lines, typed_lines
from gemma_mlx.terminal.loading import load_gemma
from gemma_mlx.terminal.output import Output, is_terminal
from gemma_mlx.terminal.stdin import STDIN


def chat(
    model: flag.Model = None,
    max_tokens: flag.MaxTokens = flag.MAX_TOKENS,
    temperature: flag.Temperature = None,
    top_k: flag.TopK = None,
    top_p: flag.TopP = None,
    min_p: flag.MinP = None,
    repetition_penalty: flag.RepetitionPenalty = None,
    seed: flag.Seed = None,
    system: flag.System = None,
    image: flag.Images = None,
    video: flag.Videos = None,
    audio: flag.Sounds = None,
    detail: flag.Detail = None,
    draft: flag.Draft = "auto",
    drafter: flag.DrafterFolder = None,
    adapter: flag.AdapterFolder = None,
    thinking: flag.Thinking = False,
    thinking_budget: flag.ThinkingBudget = None,
    context: flag.Context = None,
    kv_bits: flag.KvBits = None,
    quiet: flag.Quiet = False,
) -> None:
    """Hold a conversation; /help lists its commands. Lines piped in are taken one after the other.

    \b
    gemma-mlx chat
    gemma-mlx chat --image screenshot.png --system "Answer in one sentence."
    """
    with exit_codes():
        if STDIN in [*(image or []), *(video or []), *(audio or [])]:
            raise UsageError("chat reads its messages from stdin; give --image, --video and --audio a file")
        thinks = flag.thinking_within(thinking_budget, thinking)
        drawing = flag.Drawing(temperature, top_k, top_p, min_p, repetition_penalty, seed)
        output = Output(quiet)
        show_warnings_in_one_line(output)
        piped = not is_terminal(sys.stdin)
        if not piped:
            output.note("gemma-mlx chat: /help lists the commands, Ctrl-D leaves")
        gemma = load_gemma(
            model, output, context_tokens=context, kv_bits=kv_bits, drafter=drafter, draft=draft, adapter=adapter
        )
        from gemma_mlx.tasks.conversation import Conversation
        from gemma_mlx.terminal.chat_screen import ChatScreen

        conversation = Conversation(
            gemma,
            system=system,
            thinking=thinks,
            detail=detail,
            sampling=drawing.sampling(gemma),
            max_tokens=max_tokens,
            draft=draft,
        )
        screen = ChatScreen(conversation, output, piped_lines() if piped else typed_lines(), max_tokens)
        for path in image or []:
            output.note(conversation.attach("image", Path(path)).label)
        for path in video or []:
            output.note(conversation.attach("video", Path(path)).label)
        for path in audio or []:
            output.note(conversation.attach("audio", Path(path)).label)
        failed = screen.run()
        sys.exit(1 if piped and failed else 0)
