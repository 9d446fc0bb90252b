"""From the flags to a loaded model, with what a person must know about it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from gemma_mlx.home import find_model
from gemma_mlx.terminal.options import DraftMode

if TYPE_CHECKING:
    from gemma_mlx.gemma import Gemma

MINIATURE_NOTE = (
    "note: the miniature answers ({name}), a toy and not Gemma 4 12B; for the real model run "
    "(24 GB to download): gemma-mlx convert google/gemma-4-12B-it gemma-4bit"
)


class Teller(Protocol):
    """Who hears what a person must know while the model is loaded."""

    def say(self, line: str) -> None: ...
    def status(self, line: str) -> None: ...
    def clear_status(self) -> None: ...


def load_gemma(
    model: str | None,
    teller: Teller,
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
    teller.status(f"loading {folder.name} ...")
    try:
        from gemma_mlx.loader import load

        gemma = load(
            folder, context_tokens=context_tokens, kv_bits=kv_bits, drafter=drafter, draft=draft, adapter=adapter
        )
    finally:  # what went wrong gets a line of its own
        teller.clear_status()
    if gemma.miniature:
        teller.say(MINIATURE_NOTE.format(name=gemma.name))
    return gemma
