"""What libraries of the system say on stderr, kept off a screen that is being drawn."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def libraries_silenced() -> Iterator[None]:
    """ALSA and PortAudio report devices they did not find straight to descriptor 2; meanwhile it leads nowhere.

    For the whole process: errors of ours do not go that way while the screen is there.
    """
    before = os.dup(2)
    try:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, 2)
        os.close(nowhere)
        yield
    finally:
        os.dup2(before, 2)
        os.close(before)
