"""What a chat has left on the disk."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any


class KeptFiles:
    """The only chat that is kept in `home`."""

    def __init__(self, home: Path) -> None:
        [self.folder] = (home / "chats").iterdir()

    @property
    def lines(self) -> list[dict[str, Any]]:
        text = (self.folder / "chat.jsonl").read_text(encoding="utf-8")
        return [json.loads(line) for line in text.splitlines()]

    @property
    def kinds(self) -> list[str]:
        """What the lines tell of, in their order."""
        return [line["line"] for line in self.lines]

    @property
    def asked(self) -> list[dict[str, Any]]:
        return [line for line in self.lines if line["line"] == "asked"]

    @property
    def answered(self) -> list[dict[str, Any]]:
        return [line for line in self.lines if line["line"] == "answered"]

    @property
    def media(self) -> list[Path]:
        folder = self.folder / "media"
        return sorted(folder.iterdir()) if folder.exists() else []

    @property
    def open_to_others(self) -> list[Path]:
        """What others than its owner may look at."""
        return [path for path in [self.folder, *self.folder.rglob("*")] if path.stat().st_mode & 0o077]
