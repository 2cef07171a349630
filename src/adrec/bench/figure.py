"""Accuracy against cost, a panel a data set."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

from adrec.bench.results import Results, Row
from adrec.files import atomic_file
from adrec.pictures import check_picture
from adrec.words import counted

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.axes import Axes

OURS, THEIRS = "#c05621", "#2b6cb0"
LEAST = 0.01  # seconds: what takes less stands there


def draw(results: Results, path: Path) -> None:
    """Draw each entry's metric, with its interval, over its cost of training into a .png or .svg file.

    Raises :class:`adrec.errors.UserError` where matplotlib is missing or the file has another ending.
    """
    check_picture(path)
    from matplotlib import rc_context  # noqa: PLC0415
    from matplotlib.figure import Figure  # noqa: PLC0415

    figure = Figure(figsize=(5.2 * len(results.rows), 4.6), layout="constrained")
    panels = figure.subplots(1, len(results.rows), squeeze=False)[0]
    for axes, (name, rows) in zip(panels, results.rows.items(), strict=True):
        _panel(axes, rows, results.metric)
        axes.set_title(name)
    panels[0].set_ylabel(f"{results.metric}, x 100 (test, seen items ranked too)")
    undated: dict[str, Any] = {"metadata": {"Date": None}} if path.suffix == ".svg" else {}
    with atomic_file(path) as temporary, rc_context({"svg.hashsalt": "adrec"}):  # the same results, the same file
        figure.savefig(temporary, format=path.suffix[1:], dpi=130, **undated)


def _panel(axes: Axes, every: Sequence[Row], metric: str) -> None:
    """Draw the entries whose cost is in core time; where there is none of these, all by the clock."""
    rows = [row for row in every if row.core_time] or every
    for row in rows:
        estimate, cost = row.metrics["all"][metric], max(row.seconds, LEAST)
        error = [[100 * (estimate.mean - estimate.low)], [100 * (estimate.high - estimate.mean)]]
        axes.errorbar(
            cost, 100 * estimate.mean, yerr=error, fmt="o", color=_colour(row), markersize=5, linewidth=1, capsize=2
        )
    axes.set_xscale("log")
    left_out = f" (not drawn: {counted(len(every) - len(rows), 'entry', 'entries')} on a GPU)" if rows != every else ""
    axes.set_xlabel(f"{'core-seconds' if rows[0].core_time else 'seconds'} of training{left_out}")
    axes.margins(x=0.3)
    axes.grid(alpha=0.25)
    _label(axes, rows, metric)


def _colour(row: Row) -> str:
    return OURS if row.model == "adrec" else THEIRS


def _label(axes: Axes, rows: Sequence[Row], metric: str) -> None:
    """Write each entry's name beside its point, where no other name stands: boxes are in points of the panel."""
    (left, right), (low, high) = axes.get_xlim(), axes.get_ylim()
    width, height = 300, 265  # of a panel, about
    taken: list[tuple[float, float, float, float]] = []
    for row in sorted(rows, key=lambda each: -each.metrics["all"][metric].mean):
        cost, value = max(row.seconds, LEAST), 100 * row.metrics["all"][metric].mean
        x = width * math.log(cost / left) / math.log(right / left)
        y = height * (value - low) / (high - low)
        long = 4.8 * len(row.label)
        for side, up in ((1, 3), (-1, 3), (1, -11), (-1, -11), (1, 17), (-1, 17)):
            start = x + 5 if side > 0 else x - 5 - long
            box = (start, y + up, start + long, y + up + 9)
            inside = start >= 0 and start + long <= width
            if inside and not any(box[0] < b[2] and b[0] < box[2] and box[1] < b[3] and b[1] < box[3] for b in taken):
                break
        taken.append(box)
        axes.annotate(
            row.label,
            (cost, value),
            xytext=(5 * side, up),
            textcoords="offset points",
            fontsize=8,
            color=_colour(row),
            ha="left" if side > 0 else "right",
        )
