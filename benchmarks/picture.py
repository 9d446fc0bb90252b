"""What the pictures of all benchmarks have in common: their files, their looks, and what they say about themselves."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.report import Report, adapted
from gemma_mlx.errors import UsageError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INK, FAINT = "#222222", "#555555"
BLUE, RED, GREEN, PINK, ORANGE, SKY, BLACK = (
    "#0072B2",
    "#D55E00",
    "#009E73",
    "#CC79A7",
    "#E69F00",
    "#56B4E9",
    "#000000",
)
"""Okabe and Ito's colours: told apart by all kinds of colour vision."""
DPI = 200


def require_matplotlib() -> None:
    """Raises UsageError where nothing can be drawn."""
    if find_spec("matplotlib") is None:
        raise UsageError(
            "a plot needs matplotlib; install it with: pip install 'gemma-mlx[bench]', or leave out --plot and --output"
        )


def picture_files(file: Path) -> tuple[Path, Path]:
    """The PNG and the SVG that belong to `file`, which may be named as either or without an ending."""
    stem = file.with_suffix("") if file.suffix.lower() in (".png", ".svg") else file
    return stem.with_name(f"{stem.name}.png"), stem.with_name(f"{stem.name}.svg")


@contextmanager
def saved_figure(file: Path, width: float, height: float) -> Iterator[Figure]:
    """A white figure of so many inches, to be drawn on inside; afterwards it is in the two files of `picture_files`."""
    require_matplotlib()
    import matplotlib as mpl
    from matplotlib.figure import Figure

    png, svg = picture_files(file)
    png.parent.mkdir(parents=True, exist_ok=True)
    style: Any = {
        "font.family": "DejaVu Sans",
        "svg.hashsalt": "gemma-mlx",
        "text.color": INK,
        "axes.labelcolor": INK,
    }
    with mpl.rc_context(style):
        figure = Figure(figsize=(width, height), dpi=DPI, facecolor="white", layout="constrained")
        yield figure
        figure.savefig(png)
        figure.savefig(svg, metadata={"Date": None})


def plain_axes(axes: Axes) -> None:
    """Only what helps to read a height."""
    axes.grid(axis="y", color="#e6e6e6", linewidth=0.7)
    axes.set_axisbelow(True)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)


def origin(report: Report) -> str:
    """Which program on which machine measured."""
    return (
        f"gemma-mlx {report['gemma_mlx_version']}, MLX {report['mlx_version']} on {report['device'].upper()}, "
        f"computing in {report['dtype']}{adapted(report)}; {report['machine']}"
    )
