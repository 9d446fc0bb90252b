"""The picture of a drafting comparison: which places of a draft hold, and what each depth does to the speed."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.picture import (
    BLACK,
    BLUE,
    FAINT,
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
from benchmarks.report import Report

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_LOOKS = [
    (BLUE, "o", "-"),
    (RED, "s", "--"),
    (GREEN, "^", "-."),
    (PINK, "D", ":"),
    (ORANGE, "v", "-"),
    (SKY, "P", "--"),
    (BLACK, "X", "-."),
]
"""Colour, mark and line of each kind in turn: any one of the three tells neighbours apart."""
_WHO = {"mtp": "the drafter's drafts", "lookup": "looked up drafts", "auto": "drafts"}
_STEP = 0.06
"""Kinds stand so far beside each other at one depth, that their spans do not lie on each other."""
Points = list[dict[str, Any]]


def draw(report: Report, file: Path) -> tuple[Path, Path]:
    """Draws `report` into the two files of `picture_files`, 2200 x 1060 px and as curves."""
    kinds: dict[str, Points] = {}
    for point in report["points"]:
        kinds.setdefault(point["kind"], []).append(point)
    with saved_figure(file, 11, 5.3) as figure:
        places, speeds = figure.subplots(1, 2)
        looks = [_LOOKS[index % len(_LOOKS)] for index in range(len(kinds))]
        for (kind, points), look in zip(kinds.items(), looks, strict=True):
            _draw_places(places, kind, points, look)
        shift = -_STEP * (len(kinds) - 1) / 2
        for index, (points, look) in enumerate(zip(kinds.values(), looks, strict=True)):
            _draw_speeds(speeds, points, look, shift + _STEP * index)
        _finish_places(places)
        _finish_speeds(speeds, report)
        places.annotate(origin(report), (0, 1), xycoords="axes fraction", xytext=(-38, 26),
                        textcoords="offset points", fontsize=8)  # fmt: skip
        figure.suptitle(_title(report), x=0.008, ha="left", fontsize=12, fontweight="bold")
        figure.legend(loc="outside lower center", ncols=max(1, len(kinds)), frameon=False, fontsize=9)
    return picture_files(file)


def _title(report: Report) -> str:
    share = report["drafter_bytes"] / report["weights_bytes"]
    drafter = f"with a drafter of {share:.1%} of its bytes" if report["drafter"] else "without a drafter"
    return f"{report['model']}, {drafter}: what drafting gains"


def _draw_places(axes: Axes, kind: str, points: Points, look: tuple[str, str, str]) -> None:
    """Of the deepest drafts of a fixed depth; where none were fixed, of those that the controller chose."""
    deepest = max(points, key=lambda point: point["depth"] or 0)
    shares = deepest["acceptance_by_place"]
    colour, mark, line = look
    axes.plot(range(1, len(shares) + 1), shares, color=colour, marker=mark, linestyle=line, linewidth=1.6, label=kind)


def _draw_speeds(axes: Axes, points: Points, look: tuple[str, str, str], shift: float) -> None:
    """Medians with their span over the runs; the controller's stands in a column of its own, and as a line."""
    colour, mark, line = look
    fixed = sorted((point for point in points if point["depth"] is not None), key=lambda point: int(point["depth"]))
    bars: dict[str, Any] = {"color": colour, "marker": mark, "elinewidth": 0.8, "capsize": 2}
    if fixed:
        depths = [point["depth"] + shift for point in fixed]
        ratios = [point["ratio"] for point in fixed]
        axes.errorbar(depths, ratios, yerr=_spans(fixed), linestyle=line, linewidth=1.6, **bars)
    for point in points:
        if point["depth"] is None:
            axes.axhline(point["ratio"], color=colour, linestyle=line, linewidth=0.7, alpha=0.6)
            axes.errorbar(_chosen_at(points) + shift, point["ratio"], yerr=_spans([point]), linestyle="none", **bars)


def _chosen_at(points: Points) -> int:
    """The column of the controller: two right of the deepest fixed depth."""
    return max((point["depth"] or 0 for point in points), default=0) + 2


def _spans(points: Points) -> list[list[float]]:
    return [
        [point["ratio"] - point["ratio_min"] for point in points],
        [point["ratio_max"] - point["ratio"] for point in points],
    ]


def _finish_places(axes: Axes) -> None:
    axes.set_title("drafts that hold up to a place", loc="left", fontsize=10)
    axes.set_xlabel("place in the draft")
    axes.set_ylabel("share accepted, with all before it")
    axes.set_ylim(0, 1.03)
    axes.set_xticks(range(1, 9))
    plain_axes(axes)


def _finish_speeds(axes: Axes, report: Report) -> None:
    depths = sorted({point["depth"] for point in report["points"] if point["depth"] is not None})
    chosen = _chosen_at(report["points"])
    fixed = next((point["mode"] for point in report["points"] if point["depth"] is not None), report["draft"])
    axes.axhline(1.0, color=FAINT, linewidth=1.4)
    axes.annotate("as fast as without", (1, 1.0), xycoords=("axes fraction", "data"), xytext=(-4, 3), ha="right",
                  textcoords="offset points", fontsize=8, color=FAINT)  # fmt: skip
    axes.set_title("speed beside no drafting: median and span of the runs", loc="left", fontsize=10)
    axes.set_xticks([*depths, chosen], [*map(str, depths), "chosen"])
    axes.set_xlim(-0.6, chosen + 0.6)
    axes.set_ylim(bottom=0)
    axes.set_xlabel(f"tokens drafted at a time ({_WHO[fixed]});\nchosen and thin lines: left to the controller")
    axes.set_ylabel("times the tokens/s without drafts")
    plain_axes(axes)
