"""gemma-mlx chat: a conversation."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from gemma_mlx.errors import UsageError
from gemma_mlx.home import find_model
from gemma_mlx.terminal import options as flag
from gemma_mlx.terminal.chat.opening import Opening
from gemma_mlx.terminal.failures import exit_codes
from gemma_mlx.terminal.output import is_terminal
from gemma_mlx.terminal.stdin import STDIN

if TYPE_CHECKING:
    from gemma_mlx.inputs.media import MediaKind


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
    resume: flag.Resume = False,
    session: flag.SessionName = None,
    no_save: flag.NoSave = False,
    plain: flag.Plain = False,
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
        files: list[tuple[MediaKind, Path]] = [
            *(("image", Path(name)) for name in image or []),
            *(("video", Path(name)) for name in video or []),
            *(("audio", Path(name)) for name in audio or []),
        ]
        find_model(model)
        if no_save and (resume or session is not None):
            raise UsageError(f"{'--resume' if resume else '--session'} needs a chat that is kept; leave --no-save out")
        opening = Opening(
            model=model,
            context_tokens=context,
            kv_bits=kv_bits,
            drafter=drafter,
            draft=draft,
            adapter=adapter,
            drawing=drawing,
            system=system,
            thinking=thinks,
            detail=detail,
            max_tokens=max_tokens,
            resume=resume,
            session=session,
            save=not no_save,
        )
        if _has_screen(plain):
            from gemma_mlx.terminal.screen.app import on_screen

            on_screen(opening, files, quiet)
        from gemma_mlx.terminal.chat.lines import on_lines

        sys.exit(on_lines(opening, files, quiet))


def _has_screen(plain: bool) -> bool:
    """Whether there is a terminal to draw on, and nobody asked for plain text."""
    wanted = not plain and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
    return wanted and is_terminal(sys.stdin) and is_terminal(sys.stdout)
