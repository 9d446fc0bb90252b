"""From the flags to a loaded model, with what a person must know about it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gemma_mlx.home import find_model
from gemma_mlx.terminal.options import DraftMode
from gemma_mlx.terminal.output import Output

if TYPE_CHECKING:
    from gemma_mlx.gemma import Gemma

MINIATURE_NOTE = (
    "note: the miniature answers ({name}), a toy and not Gemma 4 12B; for the real model run "
    "(24 GB to download): gemma-mlx convert google/gemma-4-12B-it gemma-4bit"
)


def load_gemma(
    model: str | None,
    output: Output,
    *,
    context_tokens: int | None = None,
    kv_bits: int | None = None,
    drafter: str | None = None,
    draft: DraftMode = "auto",
    adapter: str | None = None,
) -> Gemma:
    """The model that `--model` or the defaults name. Says so, quiet or not, where it is a miniature.

    Raises ContextError, before any weight is read, where `context_tokens` do not fit this machine.
    """
    folder = find_model(model)
    output.status(f"loading {folder.name} ...")
    from gemma_mlx.loader import load

    gemma = load(folder, context_tokens=context_tokens, kv_bits=kv_bits, drafter=drafter, draft=draft, adapter=adapter)
    output.clear_status()
    if gemma.miniature:
        output.say(MINIATURE_NOTE.format(name=gemma.name))
    return gemma
