"""Where this program keeps its own files, and which model and drafter it uses when none is named."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from gemma_mlx.errors import CheckpointError, GemmaError, UsageError
from gemma_mlx.other_formats import refuse_other_format
from gemma_mlx.replace_file import replacing

MODEL_VARIABLE = "GEMMA_MLX_MODEL"
HOME_VARIABLE = "GEMMA_MLX_HOME"
DRAFTER_FOLDER = "drafter"
"""Where a model's folder holds its drafter."""
_LAST_MODEL_FILE = "last-model"


def home() -> Path:
    """The user's folder for history and settings; it may not exist yet. `GEMMA_MLX_HOME` moves it."""
    if named := os.environ.get(HOME_VARIABLE):
        return Path(_expanded(named))
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Application Support" / "gemma-mlx"
    return Path(os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share") / "gemma-mlx"


def miniature_folder() -> Path:
    """The trained toy checkpoint that comes with the program: inside the package, or in the source tree."""
    inside = Path(__file__).parent / "miniature"
    return inside if inside.is_dir() else Path(__file__).parents[1] / "assets" / "miniature"


def samples_folder() -> Path:
    """The sample pictures and sounds: inside the package, or in the source tree. GemmaError where they are missing."""
    inside = Path(__file__).parent / "samples"
    folder = inside if inside.is_dir() else Path(__file__).parents[1] / "assets" / "samples"
    if not (folder / "samples.json").is_file():
        raise GemmaError("this installation lacks the sample pictures and sounds; install gemma-mlx again")
    return folder


def _expanded(path: str | os.PathLike[str]) -> str:
    """`path` with its ~ resolved; the ~ of an unknown user stays, and names no folder."""
    return os.path.expanduser(path)  # noqa: PTH111  # Path.expanduser raises RuntimeError for such a user


def find_model(named: str | os.PathLike[str] | None = None) -> Path:
    """The model folder to use: the one named, else `GEMMA_MLX_MODEL`, else the last one converted, else the miniature.

    Raises UsageError if a named folder does not exist, and GemmaError as `refuse_other_format` does; a last converted
    one that is gone is passed over.
    """
    for source, value in (("", named), (f" ({MODEL_VARIABLE})", os.environ.get(MODEL_VARIABLE) or None)):
        if value is not None:
            folder = _expanded(value)
            refuse_other_format(folder)
            if not os.path.isdir(folder):  # noqa: PTH112  # False also for a name that is too long
                raise UsageError(f"no model folder {str(value)!r}{source}: name one that `gemma-mlx convert` wrote")
            return Path(folder)
    try:
        last = Path(os.fsdecode((home() / _LAST_MODEL_FILE).read_bytes().removesuffix(b"\n")))
    except (OSError, ValueError):
        last = Path()
    if last.is_absolute() and (last / "config.json").is_file():
        return last
    if not miniature_folder().is_dir():
        raise CheckpointError("this installation lacks the miniature: install gemma-mlx again, or name --model")
    return miniature_folder()


def find_drafter(model: Path, named: str | os.PathLike[str] | None = None) -> Path | None:
    """The drafter folder to use with the model folder `model`: the one named, else `model`/drafter, else None.

    Raises UsageError if a named folder does not exist.
    """
    if named is None:
        beside = model / DRAFTER_FOLDER
        return beside if (beside / "config.json").is_file() else None
    folder = _expanded(named)
    if not os.path.isdir(folder):  # noqa: PTH112  # False also for a name that is too long
        raise UsageError(f"no drafter folder {str(named)!r}: name one that `gemma-mlx convert` wrote")
    return Path(folder)


def find_adapter(named: str | os.PathLike[str]) -> Path:
    """The folder of the adapter `named`. Raises UsageError if it does not exist."""
    folder = _expanded(named)
    if not os.path.isdir(folder):  # noqa: PTH112  # False also for a name that is too long
        raise UsageError(f"no adapter folder {str(named)!r}: name one that mlx_lm.lora or PEFT wrote")
    return Path(folder)


def remember_model(folder: Path) -> None:
    """From now on `folder` is what is used when no model is named."""
    home().mkdir(parents=True, exist_ok=True)
    with replacing(home() / _LAST_MODEL_FILE) as file:
        file.write(os.fsencode(folder.resolve()) + b"\n")
