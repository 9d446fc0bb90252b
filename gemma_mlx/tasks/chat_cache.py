"""The warm caches of a chat, saved so that a resumed one need not be read anew. They are worth time, never words.

A position of Gemma 4 12B takes 10 KiB, and the windows of the sliding layers with two snapshots about 1 GB whatever the
length. So a save after each turn would write more than the chat is worth: it is done at leaving, and after a turn only
where so much is new that to lose it would cost most of a minute.
"""

from __future__ import annotations

import shutil
import warnings
from contextlib import suppress
from pathlib import Path

from gemma_mlx.decoding.session import Session
from gemma_mlx.errors import GemmaError, GemmaWarning
from gemma_mlx.gemma import Gemma

CACHE_FILE = "cache"
DUE_TOKENS = 8192
"""So many positions that were not saved yet are saved after a turn."""
MOST_BYTES = 8 << 30
"""Of all chats together; what was not used for longest goes first."""


class ChatCache:
    """Where one chat's caches are saved."""

    def __init__(self) -> None:
        self.folder: Path | None = None
        """The chat's; None as long as it has none."""
        self._saved_tokens = 0
        self._saved_turn = 0

    def resume(self, gemma: Gemma) -> tuple[Session, str | None]:
        """The session as it was saved. Where there is none to go on from, an empty one, and why if there was one."""
        if self.folder is None or not (self.folder / CACHE_FILE).exists():
            return gemma.session(), None
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always", GemmaWarning)
            session = gemma.resume_session(self.folder / CACHE_FILE)
        self._saved_tokens = session.offset
        return session, str(caught[0].message) if caught else None

    def is_due(self, session: Session) -> bool:
        """Whether to lose it would now cost a long prefill."""
        return session.offset - self._saved_tokens >= DUE_TOKENS

    def save(self, gemma: Gemma, session: Session) -> str | None:
        """Saves what is new in `session`. Returns a line where that cannot be done."""
        if self.folder is None or session.turn == self._saved_turn or not session.offset:
            return None
        if why := self._make_room(session.nbytes):
            return f"the warm cache is not saved: {why}; a resumed chat is read anew"
        try:
            gemma.save_session(session, self.folder / CACHE_FILE)
        except GemmaError as error:
            return f"the warm cache is not saved: {error}; a resumed chat is read anew"
        self._saved_tokens, self._saved_turn = session.offset, session.turn
        return None

    def _make_room(self, needed_bytes: int) -> str | None:
        """Removes the oldest caches of other chats that would be too many; returns why it is still not enough."""
        assert self.folder is not None
        if needed_bytes > MOST_BYTES:
            return f"it takes {needed_bytes / 1e9:.1f} GB, more than the {MOST_BYTES / 1e9:.1f} GB for all chats"
        found: list[tuple[float, int, Path]] = []
        for path in self.folder.parent.glob(f"*/{CACHE_FILE}"):
            with suppress(OSError):
                if path.parent != self.folder:
                    found.append((path.stat().st_mtime, path.stat().st_size, path))
        others_bytes = sum(size for _, size, _ in found)
        for _, size, path in sorted(found):
            if others_bytes + needed_bytes <= MOST_BYTES:
                break
            with suppress(OSError):
                path.unlink()
                others_bytes -= size
        with suppress(OSError):
            free_bytes = shutil.disk_usage(self.folder).free
            if free_bytes < 2 * needed_bytes:  # the disk is for other things too
                return f"it takes {needed_bytes / 1e9:.2f} GB, and the disk has {free_bytes / 1e9:.2f} GB left"
        return None
