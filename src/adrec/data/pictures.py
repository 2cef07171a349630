"""Pictures of a data set: history lengths, popularity, time, and the window that a model sees."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from adrec.data.dataset import Dataset
from adrec.data.moments import PER_SECOND
from adrec.data.split import make_split
from adrec.data.summary import Facts
from adrec.utils.errors import ConfigError, UserError, needs_extra
from adrec.utils.files import atomic_file

if TYPE_CHECKING:
    from matplotlib.axes import Axes

ENDINGS = (".png", ".svg")
COLOUR, SECOND = "#2b6cb0", "#c05621"


def check_picture(path: Path) -> None:
    """Raise :class:`UserError`, before any work, if a picture cannot be written to ``path``."""
    if path.suffix not in ENDINGS:
        raise ConfigError(f"--picture {path} should end in one of {', '.join(ENDINGS)}.")
    if find_spec("matplotlib") is None:
        raise UserError(needs_extra("drawing a picture", "plots"))


def picture(dataset: Dataset, facts: Facts, path: Path) -> None:
    """Draw a data set into ``path``, a .png or .svg file. Raises as :func:`check_picture` does."""
    check_picture(path)
    from matplotlib.figure import Figure  # noqa: PLC0415

    figure = Figure(figsize=(11, 7.5), layout="constrained")
    axes = figure.subplots(2, 2)
    _lengths(axes[0, 0], dataset, facts)
    _popularity(axes[0, 1], dataset, facts)
    _times(axes[1, 0], dataset)
    _window(axes[1, 1], dataset, facts)
    figure.suptitle(
        f"{facts.name}: {facts.interactions:,} interactions of {facts.users:,} users with {facts.items:,} items"
    )
    with atomic_file(path) as temporary:
        figure.savefig(temporary, format=path.suffix[1:], dpi=130)


def _plain(axis: Axes, title: str, x: str, y: str) -> None:
    axis.set_title(title, loc="left", fontsize=10)
    axis.set_xlabel(x)
    axis.set_ylabel(y)
    axis.spines[["top", "right"]].set_visible(False)


def _log(axes: Axes, names: str) -> None:
    """Set a logarithmic scale on the axes in ``names`` (x or y), with plain tick labels that do not overlap.

    Call it after the data are drawn: over many decades, only the decades are labelled.
    """
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter  # noqa: PLC0415

    for name in names:
        axes.set(**{f"{name}scale": "log"})
        axis = axes.xaxis if name == "x" else axes.yaxis
        low, high = axis.get_data_interval()
        axis.set_major_locator(LogLocator(subs=(1, 2, 5) if high < 500 * low else (1,)))
        axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,g}"))
        axis.set_minor_formatter(NullFormatter())


def _lengths(axis: Axes, dataset: Dataset, facts: Facts) -> None:
    lengths = np.diff(dataset.offsets)
    lengths = lengths[lengths > 0]
    edges = np.unique(np.round(np.geomspace(lengths.min(), lengths.max() + 1, 30)).astype(int))
    edges = edges if len(edges) > 1 else np.array([lengths.min(), lengths.max() + 1])
    counts, _ = np.histogram(lengths, bins=edges)
    axis.stairs(counts / np.diff(edges), edges - 0.5, fill=True, color=COLOUR)  # by length: bins differ in width
    _log(axis, "x")
    axis.axvline(facts.max_length, color=SECOND, linestyle="--")
    median = facts.history_length["50 %"]
    title = f"History length: median {median:g}, mean {facts.history_length['mean']:.1f}; window of the model "
    _plain(axis, f"{title}{facts.max_length} (dashed)", "interactions", "users of each length")


def _popularity(axis: Axes, dataset: Dataset, facts: Facts) -> None:
    counts = np.sort(dataset.popularity[1:])[::-1]
    counts = counts[counts > 0]
    axis.plot(np.arange(1, len(counts) + 1), counts, color=COLOUR)
    _log(axis, "xy")
    title = f"Popularity: the most popular 1 % of items have {facts.top_share:.0%} of interactions"
    _plain(axis, title, "items, most popular first", "interactions")


def _times(axis: Axes, dataset: Dataset) -> None:
    unit = dataset.info.time_unit
    times = np.asarray(dataset.times).astype(np.float64) / PER_SECOND.get(unit, 1)
    counts, edges = np.histogram(times, bins=_bins(times))
    days = edges / 86400  # since 1970, as matplotlib counts dates
    axis.stairs(counts, days if unit in PER_SECOND else edges, fill=True, color=COLOUR)
    if unit in PER_SECOND:
        axis.xaxis_date()
        axis.tick_params(axis="x", labelrotation=30)
    split = make_split(dataset)
    named = f"split: {split.name}"
    _plain(
        axis, f"Time ({named if len(named) < 60 else 'split: ' + split.name.partition(':')[0]})", "time", "interactions"
    )


def _bins(times: NDArray[np.float64], most: int = 60) -> NDArray[np.float64]:
    """Return the edges of at most ``most`` bins, each a whole number of the smallest steps between the times.

    Bins of another width would hold now more and now fewer days, which looks like spikes.
    """
    distinct = np.unique(times.astype(np.int64))
    step = max(1, int(np.gcd.reduce(np.diff(distinct))) if len(distinct) > 1 else 1)
    number = (distinct[-1] - distinct[0]) // step + 1
    width = step * -(-number // most)
    return np.arange(distinct[0] - 0.5 * step, distinct[-1] + width, width)


def _window(axis: Axes, dataset: Dataset, facts: Facts) -> None:
    split = make_split(dataset)
    inputs = np.minimum(split.train_ends - np.asarray(dataset.offsets[:-1]) - 1, facts.max_length)
    inputs = inputs[inputs >= 1]
    filled = np.bincount(inputs, minlength=facts.max_length + 1)[1:] if len(inputs) else np.zeros(facts.max_length)
    share = np.cumsum(filled[::-1])[::-1] / max(len(inputs), 1)
    axis.bar(np.arange(1, facts.max_length + 1), share, width=1.0, color=COLOUR)
    axis.set_ylim(0, 1)
    title = f"The window in training: {facts.window_used:.0%} of {facts.max_length} positions are used"
    _plain(axis, title, "position, from the newest", "share of histories that reach it")
