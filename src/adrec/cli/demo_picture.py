"""The demo's picture: maps of the item embedding and the accuracy of the models."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from adrec.diagnose.attributes import GREY, PALETTE
from adrec.diagnose.density import box
from adrec.diagnose.maps import check_drawing, tsne
from adrec.nn.spectrum import Matrix
from adrec.utils.files import atomic_file

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.axes import Axes
    from numpy.typing import NDArray

    from adrec.evaluate.protocol import Evaluation

MOST_FILMS = 2_000  # on a map: t-SNE takes some seconds of a core for them
GENRES = 6  # that have a colour


def draw_demo(
    path: Path,
    maps: Mapping[str, Matrix],
    genres: Sequence[str | None],
    popularity: NDArray[np.int64],
    results: Mapping[str, Evaluation],
    metric: str,
) -> None:
    """Write a PNG with a t-SNE map of each embedding, coloured by genre, and a bar for each model.

    Args:
        path: the file.
        maps: embeddings of the same items, [V, D] each, by title.
        genres: the items' genres; None if unknown.
        popularity: the items' training interactions, [V]; the most popular are on the maps.
        results: evaluations by the name of the model.
        metric: the metric of the bars.

    Raises:
        UserError: if matplotlib or scikit-learn is missing.
    """
    check_drawing()
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

    figure = Figure(figsize=(4.2 * (len(maps) + 1), 4.8), layout="constrained")
    *panels, last = figure.subplots(1, len(maps) + 1)
    shown = np.sort(np.argsort(-popularity, kind="stable")[:MOST_FILMS])
    named = [genres[row] for row in shown]
    values, counts = np.unique([each for each in named if each is not None], return_counts=True)
    kinds = {str(value): number for number, value in enumerate(values[np.argsort(-counts, kind="stable")][:GENRES])}
    colours = [PALETTE[kinds[each]] if each in kinds else GREY for each in named]
    for axes, (title, embedding) in zip(panels, maps.items(), strict=True):
        points = tsne(embedding[shown], seed=0)
        x, y = box(points).within(points).T
        axes.scatter(x, y, s=5, c=colours, linewidths=0, alpha=0.8)
        axes.set(xlim=(0, 1), ylim=(0, 1), xticks=[], yticks=[], aspect="equal", title=title)
    _bars(last, results, metric)
    handles = [Line2D([], [], marker="o", linestyle="", color=PALETTE[at], label=kind) for kind, at in kinds.items()]
    handles.append(Line2D([], [], marker="o", linestyle="", color=GREY, label="other"))
    figure.legend(handles=handles, loc="outside lower left", ncols=len(handles), frameon=False, fontsize=9)
    with atomic_file(path) as temporary:
        figure.savefig(temporary, format="png", dpi=130)


def _bars(axes: Axes, results: Mapping[str, Evaluation], metric: str) -> None:
    """Draw a bar for each model, with its 95 % interval."""
    for at, (name, evaluation) in enumerate(reversed([*results.items()])):
        found = evaluation.metrics[metric]
        axes.barh(at, found.mean, color=PALETTE[1] if name not in ("popular", "itemknn") else PALETTE[0], height=0.7)
        axes.plot([found.low, found.high], [at, at], color="black", linewidth=1.2)
    axes.set_yticks(range(len(results)), list(results)[::-1])
    axes.set_title(f"{metric} on the test part, with 95 % intervals", fontsize=10)
    axes.spines[["top", "right"]].set_visible(False)
