"""Accuracy against cost, a panel a data set."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from adrec.bench.results import Results, Row
from adrec.files import atomic_file
from adrec.pictures import check_picture

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.axes import Axes

OURS, THEIRS = "#c05621", "#2b6cb0"


def draw(results: Results, path: Path) -> None:
    """Draw each entry's metric, with its interval, over its seconds of training into a .png or .svg file.

    Raises :class:`adrec.errors.UserError` where matplotlib is missing or the file has another ending.
    """
    check_picture(path)
    from matplotlib.figure import Figure  # noqa: PLC0415

    figure = Figure(figsize=(5.2 * len(results.rows), 4.6), layout="constrained")
    panels = figure.subplots(1, len(results.rows), squeeze=False)[0]
    for axes, (name, rows) in zip(panels, results.rows.items(), strict=True):
        _panel(axes, rows, results.metric)
        axes.set_title(name)
    panels[0].set_ylabel(f"{results.metric}, x 100 (test, seen items ranked too)")
    with atomic_file(path) as temporary:
        figure.savefig(temporary, format=path.suffix[1:], dpi=130)


def _panel(axes: Axes, rows: Sequence[Row], metric: str) -> None:
    lowest = 0.01  # seconds: what takes less stands at the left edge
    for row in sorted(rows, key=lambda each: -each.metrics["all"][metric].mean):
        estimate, cost = row.metrics["all"][metric], max(row.seconds, lowest)
        colour = OURS if row.model == "adrec" else THEIRS
        spread = [[estimate.mean - estimate.low], [estimate.high - estimate.mean]]
        height = 100 * estimate.mean
        error = [[100 * low_or_high[0]] for low_or_high in spread]
        axes.errorbar(cost, height, yerr=error, fmt="o", color=colour, markersize=5, linewidth=1, capsize=2)
        axes.annotate(row.label, (cost, height), xytext=(5, 3), textcoords="offset points", fontsize=8, color=colour)
    axes.set_xscale("log")
    axes.set_xlabel("seconds of training")
    axes.margins(x=0.25)
    axes.grid(alpha=0.25)
