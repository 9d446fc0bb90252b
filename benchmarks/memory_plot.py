"""The picture of a memory series: bytes against context, with what Macs give their GPU."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.picture import BLUE, FAINT, GREEN, PINK, RED, origin, picture_files, plain_axes, saved_figure
from benchmarks.report import Report

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_GB = 1e9
_LOOKS = {
    "shared": ("shared rows (gemma-mlx)", BLUE, "o", 1.0),
    "plain": ("two tensors (plain)", RED, "s", 1.0),
    "mlx-lm": ("mlx-lm", GREEN, "^", 0.95),
    "mlx-vlm": ("mlx-vlm", PINK, "D", 1.05),
}
"""Per layout its name, colour and mark, and a step aside so that marks do not lie on each other."""


def draw(report: Report, file: Path) -> tuple[Path, Path]:
    """Draws `report` into the two files of `picture_files`, 1800 x 1120 px and as curves."""
    with saved_figure(file, 9, 5.6) as figure:
        axes = figure.add_subplot(facecolor="white")
        top = _draw_layouts(axes, report["points"])
        # Beside a Mac's memory a toy's would lie on the axis.
        near = {name: limit for name, limit in report["mac_limits_bytes"].items() if limit < 10 * top}
        _draw_limits(axes, near, top)
        _draw_axes(axes, report, sorted({point["context_tokens"] for point in report["points"]}))
        figure.legend(loc="outside lower center", ncols=3, frameon=False, fontsize=8.5)
    return picture_files(file)


def _draw_layouts(axes: Axes, points: list[dict[str, Any]]) -> float:
    """Filled marks for the peak, hollow ones for what is held, our plan as a line; returns the largest number drawn.

    The plain layout's planned bytes are not drawn: it is not what anybody plans by.
    """
    drawn = [0.0]
    for layout, (name, colour, mark, shift) in _LOOKS.items():
        own = [point for point in points if point["layout"] == layout]
        marks: dict[str, Any] = {"marker": mark, "markersize": 7, "linewidth": 0.8}
        looks: dict[str, Any] = {
            "planned_bytes": {"linestyle": "--", "linewidth": 1.6, "label": "the plan"} if layout == "shared" else None,
            "peak_bytes": {**marks, "linestyle": "-", "label": "peak"},
            "active_bytes": {**marks, "linestyle": ":", "markerfacecolor": "white", "label": "weights and caches"},
        }
        for key, look in looks.items():
            found = [(point["context_tokens"] * shift, point[key]) for point in own if point.get(key) is not None]
            if found and look is not None:
                contexts, sizes = zip(*found, strict=True)
                look["label"] = f"{name}: {look['label']}"
                axes.plot(contexts, [size / _GB for size in sizes], color=colour, **look)
                drawn += sizes
    return max(drawn)


def _draw_limits(axes: Axes, limits: dict[str, int], top: float) -> None:
    """A line for each of `limits`. The axis ends above them and `top`, the largest number drawn."""
    for name, limit in limits.items():
        axes.axhline(limit / _GB, color=FAINT, linewidth=1.2)
        axes.annotate(
            f"{name.removesuffix('GB')} GB Mac: {limit / _GB:.1f} GB for its GPU",
            (0, limit / _GB),
            xycoords=("axes fraction", "data"),
            xytext=(6, 3),
            textcoords="offset points",
            fontsize=8.5,
            color=FAINT,
            bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.5},
        )
    axes.set_ylim(0, max(top, *limits.values(), 1.0) / _GB * 1.08)


def _draw_axes(axes: Axes, report: Report, contexts: list[int]) -> None:
    axes.set_xscale("log", base=2)
    axes.set_xticks(contexts, [short_tokens(context) for context in contexts])
    axes.minorticks_off()
    axes.set_xlim(contexts[0] / 1.25, contexts[-1] * 1.25) if contexts else None
    axes.set_xlabel("context (tokens)")
    axes.set_ylabel("memory (GB)")
    plain_axes(axes)
    cache = f"{report['kv_bits']}-bit rows" if report["kv_bits"] else f"{report['dtype']} cache"
    axes.set_title(
        f"{report['model']}: memory against context, {cache}", loc="left", fontsize=12, fontweight="bold", pad=22
    )
    about = f"{origin(report)}; caches filled with random rows"
    axes.annotate(about, (0, 1), xycoords="axes fraction", xytext=(0, 8), textcoords="offset points", fontsize=8)


def short_tokens(tokens: int) -> str:
    """4096 -> 4K; what is no multiple of 1024 as it is."""
    return f"{tokens // 1024}K" if tokens % 1024 == 0 else f"{tokens:,}"
