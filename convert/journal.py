"""What of a conversion is done, kept on the disk: a line for each tensor, written once its bytes are there.

    {"conversion": {"recipe": "...", "model.safetensors": "...", ...}}      of what into what
    {"tensor": "language_model.embed_tokens.weight", "tally": {...}}        this one need not be done again

A line that was cut off by a kill or a power cut does not count, nor what follows it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from convert.tally import Tally
from gemma_mlx.replace_file import bring_path_to_disk, bring_to_disk

Identity = Mapping[str, str]
"""Everything that the bytes of a converted folder depend on, by name: the same identity gives the same bytes."""


class Journal:
    """The journal in `path`, as far as its lines are whole. It is made with the first line that is added."""

    def __init__(self, path: Path) -> None:
        self.identity: Identity | None = None
        """Of the conversion that it is of; None where none has begun."""
        self.finished: dict[str, Tally] = {}
        """The tensors that need not be done again, by the source's name, and what packing changed in each."""
        self._path = path
        self._whole_bytes = 0
        text = path.read_bytes() if path.exists() else b""
        for line in text.splitlines(keepends=True):
            if not (line.endswith(b"\n") and self._understand(line)):
                break
            self._whole_bytes += len(line)

    def begin(self, identity: Identity) -> None:
        """Makes it the journal of another conversion, of which nothing is done."""
        self.identity, self.finished, self._whole_bytes = identity, {}, 0
        self._append([{"conversion": dict(identity)}])
        bring_path_to_disk(self._path.parent)  # its name

    def add(self, finished: Mapping[str, Tally]) -> None:
        """Says that the bytes of these tensors are on the disk. Afterwards that is on the disk, too."""
        self._append([{"tensor": name, "tally": asdict(tally)} for name, tally in finished.items()])
        self.finished.update(finished)

    def _understand(self, line: bytes) -> bool:
        try:
            entry = json.loads(line)
            if self.identity is None:
                self.identity = {str(key): str(value) for key, value in entry["conversion"].items()}
            else:
                self.finished[str(entry["tensor"])] = Tally(**entry["tally"])
        except (ValueError, KeyError, TypeError, AttributeError):
            return False
        return True

    def _append(self, entries: list[dict[str, Any]]) -> None:
        with self._path.open("r+b" if self._path.exists() else "wb") as stream:
            stream.truncate(self._whole_bytes)  # what was cut off goes
            stream.seek(self._whole_bytes)
            stream.write(b"".join(json.dumps(entry).encode() + b"\n" for entry in entries))
            stream.flush()
            bring_to_disk(stream.fileno())
            self._whole_bytes = stream.tell()
