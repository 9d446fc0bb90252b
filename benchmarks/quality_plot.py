"""The picture of a quality comparison: how far each folder is from the reference, and what it gets wrong."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.picture import (
    BLACK,
    BLUE,
    GREEN,
    ORANGE,
    PINK,
    RED,
    SKY,
    origin,
    picture_files,
    plain_axes,
    saved_figure,
)
from benchmarks.quality import total_points
from benchmarks.report import Report

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_COLOURS = (BLACK, BLUE, GREEN, RED, ORANGE, PINK, SKY)
_HATCHES = ("", "//", "..", "xx", "\\\\", "--", "++")
_LOOKS = {
    "kl_max": ("largest", "v", ":", SKY),
    "kl_p99": ("99 of 100 below", "^", "--", BLUE),
    "kl_mean": ("mean", "o", "-", BLACK),
    "kl_median": ("median", "s", "-.", GREEN),
}
_GROUP_WIDTH = 0.8
Points = list[dict[str, Any]]


def draw(report: Report, file: Path) -> tuple[Path, Path]:
    """Draws `report` into the two files of `picture_files`, 2200 x 1060 px and as curves."""
    totals = [point for point in total_points(report) if point["folder"] != report["model"]]
    sets = [point for point in report["points"] if point["part"] == "set"]
    panels = [panel for panel, points in ((_draw_divergence, totals), (_draw_errors, sets)) if points]
    with saved_figure(file, 11, 5.3) as figure:
        axes = figure.subplots(1, max(1, len(panels)), squeeze=False)[0]
        for place, panel in zip(axes, panels, strict=False):
            panel(place, report, totals if panel is _draw_divergence else sets)
            plain_axes(place)
        axes[0].annotate(origin(report), (0, 1), xycoords="axes fraction", xytext=(-38, 26),
                         textcoords="offset points", fontsize=8)  # fmt: skip
        figure.suptitle(f"What packing costs, beside {report['model']}", x=0.008, ha="left", fontsize=12,
                        fontweight="bold")  # fmt: skip
    return picture_files(file)


def _draw_divergence(axes: Axes, report: Report, points: Points) -> None:
    """A column for each folder, the smallest last; a divergence of 0 has no place on the axis."""
    ordered = sorted(points, key=lambda point: -int(point["stored_bytes"]))
    for key, (label, mark, line, colour) in _LOOKS.items():
        heights = [point[key] if point[key] > 0 else float("nan") for point in ordered]
        axes.plot(range(len(ordered)), heights, color=colour, marker=mark, linestyle=line, linewidth=1.2, label=label)
    axes.set_yscale("log")
    axes.set_title(f"divergence from {report['model']} over answers' positions", loc="left", fontsize=10)
    axes.set_ylabel("KL divergence, nats")
    names = [f"{point['folder']}\n{_size(point['stored_bytes'])}" for point in ordered]
    axes.set_xticks(range(len(ordered)), names, fontsize=8)
    axes.set_xlim(-0.5, len(ordered) - 0.5)
    axes.legend(frameon=False, fontsize=8)


def _draw_errors(axes: Axes, report: Report, points: Points) -> None:
    """A group of bars for each set and budget, a bar for each folder or other system."""
    groups = list(dict.fromkeys((point["name"], point["budget"]) for point in points))
    folders = list(dict.fromkeys(point["folder"] for point in points))
    width = _GROUP_WIDTH / len(folders)
    for index, folder in enumerate(folders):
        own = [point for point in points if point["folder"] == folder and error_rate(point) is not None]
        places = [groups.index((point["name"], point["budget"])) for point in own]
        shifted = [place + (index - (len(folders) - 1) / 2) * width for place in places]
        heights = [100 * (error_rate(point) or 0.0) for point in own]
        axes.bar(shifted, heights, 0.9 * width, color=_COLOURS[index % len(_COLOURS)],
                 hatch=_HATCHES[index % len(_HATCHES)], edgecolor="white", label=folder)  # fmt: skip
    axes.set_title("errors: % of characters (pictures) or words (sounds)", loc="left", fontsize=10)
    axes.set_ylabel("error rate, %")
    names = [name if budget is None else f"{name}\n{budget} tokens" for name, budget in groups]
    axes.set_xticks(range(len(groups)), names, fontsize=8)
    axes.legend(frameon=False, fontsize=8)


def error_rate(point: dict[str, Any]) -> float | None:
    """The rate that a set of its kind is read by: of words for sounds, of characters for pictures."""
    found = point["word_error_rate" if point["kind"] == "audio" else "character_error_rate"]
    return None if found is None else float(found)


def _size(stored_bytes: int) -> str:
    return f"{stored_bytes / 1e9:.2f} GB" if stored_bytes >= 1e9 else f"{stored_bytes / 1e6:.1f} MB"
