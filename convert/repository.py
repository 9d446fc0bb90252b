"""What a name on the Hugging Face Hub looks like."""

from __future__ import annotations

import re


def named_repository(reference: str) -> tuple[str, str | None] | None:
    """("google/gemma-4-12B-it", "main") for google/gemma-4-12B-it@main; None for what cannot be a name on the Hub."""
    found = re.fullmatch(r"(\w[\w.-]*/\w[\w.-]*)(?:@(.+))?", reference, re.ASCII)
    return (found[1], found[2]) if found else None
