"""Who drafts: the drafter of a model's folder, the lookup in the prompt, both or nobody."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import get_args

from gemma_mlx.decoding.costs import Drafter
from gemma_mlx.decoding.lookup import PromptLookup
from gemma_mlx.decoding.speculate import DepthRule, Drafting, DraftMode
from gemma_mlx.errors import UsageError
from gemma_mlx.home import find_drafter
from gemma_mlx.inputs.tokenizer import Tokenizer


def drafter_to_load(model: Path, named: str | os.PathLike[str] | None, draft: DraftMode) -> Path | None:
    """The folder of the drafter for the model folder `model`; None where `draft` wants none or none is there.

    Raises UsageError for an unknown `draft`, for a drafter named in vain, and where "mtp" finds none.
    """
    _check(draft)
    if draft in ("lookup", "off"):
        if named is not None:
            raise UsageError(f"a drafter has no effect with draft {draft!r}; leave one of them out")
        return None
    found = find_drafter(model, named)
    if found is None and draft == "mtp":
        raise _without_drafter(model.resolve().name)
    return found


def check_draft(draft: str, drafter: Drafter | None, model_name: str) -> None:
    """Raises UsageError unless a model with this `drafter` (None: without one) can answer with `draft`."""
    _check(draft)
    if draft == "mtp" and drafter is None:
        raise _without_drafter(model_name)


def drafting_after(
    prompt_ids: Sequence[int], draft: DraftMode, depth_rule: DepthRule, drafter: Drafter | None, tokenizer: Tokenizer
) -> Drafting | None:
    """Who drafts the tokens after a prompt; None for nobody."""
    drafter = drafter if draft in ("auto", "mtp") else None
    lookup = None
    if draft in ("auto", "lookup"):
        lookup = PromptLookup(prompt_ids, lambda index: not tokenizer.is_silent(index))
    return Drafting(depth_rule, drafter, lookup) if drafter or lookup else None


def _check(draft: str) -> None:
    if draft not in get_args(DraftMode):
        raise UsageError(f"draft is {draft!r}, it must be one of {', '.join(get_args(DraftMode))}")


def _without_drafter(model_name: str) -> UsageError:
    return UsageError(
        f"draft is 'mtp', but {model_name} has no drafter; convert google/gemma-4-12B-it-assistant into its folder "
        "drafter, or leave it at 'auto'"
    )
