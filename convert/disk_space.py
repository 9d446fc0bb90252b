"""Whether what is to be written fits, before it is begun."""

from __future__ import annotations

import os
import shutil
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path

from gemma_mlx.errors import CheckpointError


def require_space(needed_bytes: Mapping[Path, int]) -> None:
    """Raises CheckpointError unless so many bytes can be written at each of these paths, all together.

    Paths need not exist yet. Those on the same disk share what is free there.
    """
    disks: dict[int, list[Path]] = defaultdict(list)
    for path in needed_bytes:
        disks[_existing(path).stat().st_dev].append(path)
    for paths in disks.values():
        needed, free = sum(needed_bytes[path] for path in paths), shutil.disk_usage(_existing(paths[0])).free
        if needed > free:
            raise CheckpointError(
                f"{needed / 1e9:,.2f} GB are still to be written to {' and '.join(map(str, paths))}, and "
                f"{free / 1e9:,.2f} GB are free there; free some or name a folder on another disk"
            )


def held_bytes(folder: Path) -> int:
    """What the files in `folder` take of the disk already; 512 bytes are the unit of st_blocks, whatever the disk's."""
    return sum(512 * file.stat().st_blocks for file in folder.iterdir()) if folder.is_dir() else 0


def _existing(path: Path) -> Path:
    return next(folder for folder in (path, *path.absolute().parents) if os.path.lexists(folder))
