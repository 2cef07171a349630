"""Figure of accuracy over training cost, one panel per data set."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from adrec.bench.results import Results, Row
from adrec.data.pictures import check_picture
from adrec.utils.errors import UserError, needs_extra
from adrec.utils.files import atomic_file
from adrec.utils.text import counted

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.axes import Axes

OURS, THEIRS = "#c05621", "#2b6cb0"
LEAST = 0.01  # seconds; lower costs are drawn here


def draw(results: Results, path: Path) -> None:
    """Draw each entry's metric, with its interval, over its cost of training into a .png or .svg file.

    Raises :class:`UserError` where matplotlib or textalloc is missing or the file has another ending.
    """
    check_picture(path)
    if find_spec("textalloc") is None:
        raise UserError(needs_extra("laying out the figure's names", "plots"))
    from matplotlib import rc_context  # noqa: PLC0415
    from matplotlib.figure import Figure  # noqa: PLC0415

    figure = Figure(figsize=(5.6 * len(results.rows), 5.6), layout="constrained")
    panels = figure.subplots(1, len(results.rows), squeeze=False)[0]
    for axes, (name, rows) in zip(panels, results.rows.items(), strict=True):
        _panel(axes, rows, results.metric)
        axes.set_title(name)
    panels[0].set_ylabel(f"{results.metric}, x 100 (test, seen items ranked too)")
    figure.draw_without_rendering()  # the panels take their places, in which names are laid out
    for axes, rows in zip(panels, results.rows.values(), strict=True):
        _label(axes, _drawn(rows), results.metric)
    undated: dict[str, Any] = {"metadata": {"Date": None}} if path.suffix == ".svg" else {}
    with atomic_file(path) as temporary, rc_context({"svg.hashsalt": "adrec"}):  # reproducible output
        figure.savefig(temporary, format=path.suffix[1:], dpi=130, **undated)


def _panel(axes: Axes, every: Sequence[Row], metric: str) -> None:
    rows = _drawn(every)
    for row in rows:
        estimate, cost = row.metrics["all"][metric], max(row.seconds, LEAST)
        error = [[100 * (estimate.mean - estimate.low)], [100 * (estimate.high - estimate.mean)]]
        axes.errorbar(
            cost, 100 * estimate.mean, yerr=error, fmt="o", color=_colour(row), markersize=5, linewidth=1, capsize=2
        )
    axes.set_xscale("log")
    notes = [f"at {LEAST}: that or less"] if any(row.seconds < LEAST for row in rows) else []
    if rows != every:
        notes.append(f"not drawn: {counted(len(every) - len(rows), 'entry', 'entries')} on a GPU")
    unit = "core-seconds" if rows[0].core_time else "seconds"
    axes.set_xlabel(f"{unit} of training" + (f" ({'; '.join(notes)})" if notes else ""))
    axes.margins(x=0.25, y=0.1)
    axes.grid(alpha=0.25)


def _drawn(rows: Sequence[Row]) -> Sequence[Row]:
    """Return the entries with costs in core time; if there are none, all entries, in wall-clock time."""
    return [row for row in rows if row.core_time] or rows


def _colour(row: Row) -> str:
    return OURS if row.model == "adrec" else THEIRS


def _label(axes: Axes, rows: Sequence[Row], metric: str) -> None:
    """Label each entry without overlap with other labels, points or intervals, with a line to its point."""
    import textalloc  # noqa: PLC0415

    axes.set(xlim=axes.get_xlim(), ylim=axes.get_ylim())  # the lines that are added must not move what was laid out
    costs = [max(row.seconds, LEAST) for row in rows]
    estimates = [row.metrics["all"][metric] for row in rows]
    colours = [_colour(row) for row in rows]
    textalloc.allocate(
        axes,
        costs,
        [100 * estimate.mean for estimate in estimates],
        [row.label for row in rows],
        x_scatter=costs,
        y_scatter=[100 * estimate.mean for estimate in estimates],
        x_lines=[[cost, cost] for cost in costs],
        y_lines=[[100 * estimate.low, 100 * estimate.high] for estimate in estimates],
        textsize=7.5,
        textcolor=colours,
        linecolor=colours,
        linewidth=0.5,
        max_distance=0.3,
        avoid_label_lines_overlap=True,
        nbr_candidates=400,
    )
