"""Pictures of embedding spaces side by side: maps, spectra, norms and popularity, cosines of pairs."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from adrec.diagnose.attributes import GREY, NOISE, PALETTE, Attribute, Colouring, colouring
from adrec.diagnose.curves import FEW, PLAIN, cosine_rows, medians, norm_points, popularity_ticks, spectra
from adrec.diagnose.density import CELLS, Box, box, density
from adrec.diagnose.diagnosis import Diagnosed
from adrec.diagnose.maps import PCA, TSNE, Map, check_drawing, draw_maps
from adrec.nn.spectrum import Float64s
from adrec.utils.errors import ConfigError
from adrec.utils.files import atomic_file, discard

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

ENDINGS = (".png", ".svg")
FILES = ("maps", "spectrum", "norms", "cosines")
SIDE = 3.3  # inches of a map
DASHES = {"solid": "-", "dashed": "--", "dotted": ":", "dash-dot": "-."}


def write_pictures(
    diagnosed: Sequence[Diagnosed],
    folder: Path,
    *,
    kinds: Sequence[str] = (".png",),
    attribute: Sequence[Attribute] | None = None,
    seed: int = 0,
    maps: Sequence[Map] | None = None,
) -> list[Path]:
    """Draw ``maps``, ``spectrum``, ``norms`` (where a popularity is known) and ``cosines`` into files of a folder.

    Args:
        diagnosed: one space at least.
        folder: is made; files of these names are replaced.
        kinds: endings, ``.png`` and ``.svg``.
        attribute: what maps are coloured by, one for each space.
        seed: of the maps.
        maps: what :func:`adrec.diagnose.maps.draw_maps` returned for these spaces, where that is at hand.

    Returns:
        The files.

    Raises:
        ConfigError: for another ending.
        UserError: where matplotlib or scikit-learn is missing, or the folder cannot be written.
    """
    check_kinds(kinds)
    check_drawing()
    coloured = colouring(attribute, [len(each.space.embedding) for each in diagnosed]) if attribute else None
    maps = draw_maps([each.space for each in diagnosed], seed=seed) if maps is None else maps
    drawings: dict[str, Callable[[], Figure]] = {
        "maps": partial(_maps, maps, coloured),
        "spectrum": partial(_spectrum, diagnosed),
        "norms": partial(_norms, diagnosed, maps),
        "cosines": partial(_cosines, diagnosed),
    }
    if all(each.space.popularity is None for each in diagnosed):
        del drawings["norms"]
    return list(_write(drawings, folder, kinds))


def check_kinds(kinds: Sequence[str]) -> None:
    """Raise :class:`ConfigError` for an ending that no picture can have."""
    for kind in kinds:
        if kind not in ENDINGS:
            raise ConfigError(f"a picture cannot end in {kind}; take one of {', '.join(ENDINGS)}.")


def _write(drawings: dict[str, Callable[[], Figure]], folder: Path, kinds: Sequence[str]) -> Iterator[Path]:
    from matplotlib import rc_context  # noqa: PLC0415

    for name in FILES:
        if name not in drawings:  # what an earlier call drew of other spaces
            for kind in ENDINGS:
                discard(folder / (name + kind))
            continue
        for kind in kinds:
            figure = drawings[name]()  # anew: drawing it moves its layout a little
            with rc_context({"svg.hashsalt": "adrec"}), atomic_file(folder / (name + kind)) as temporary:
                undated = {"Date": None} if kind == ".svg" else None
                figure.savefig(temporary, format=kind[1:], dpi=150, metadata=undated)
            yield folder / (name + kind)


def _figure(width: float, height: float) -> Figure:
    from matplotlib.figure import Figure  # noqa: PLC0415

    return Figure(figsize=(width, height), layout="constrained")


def _maps(maps: Sequence[Map], coloured: Colouring | None) -> Figure:
    width = SIDE * len(maps)
    marks = [] if coloured is None else _marks(coloured)
    columns = max(1, int(width / (0.6 + 0.09 * max((len(label) for label, _ in marks), default=1))))
    figure = _figure(width, SIDE * 2 + 0.6 + (0.4 + 0.2 * math.ceil(len(marks) / columns) if marks else 0))
    panels = figure.subplots(2, len(maps), squeeze=False)
    for column, found in enumerate(maps):
        for row, method in enumerate((PCA, TSNE)):
            _map(panels[row, column], found, method, coloured)
        panels[0, column].set_title(_short(found.name), fontsize=12)
        first, second = found.shares
        panels[0, column].set_xlabel(f"{first:.1%} and {second:.1%} of the variance", fontsize=8)
    for row, method in enumerate((PCA, TSNE)):
        panels[row, 0].set_ylabel(method, fontsize=11)
    if coloured is not None:
        _legend(figure, coloured.name, marks, columns)
    return figure


def _marks(coloured: Colouring) -> list[tuple[str, str]]:
    """Return what stands in the legend, with its colour."""
    marks = [(_short(label), own) for label, own in zip(coloured.labels, PALETTE, strict=False)]
    return [*marks, (coloured.rest, GREY)] if coloured.rest else marks


def _legend(figure: Figure, title: str, marks: Sequence[tuple[str, str]], columns: int) -> None:
    from matplotlib.lines import Line2D  # noqa: PLC0415

    handles = [Line2D([], [], marker="o", linestyle="", color=own, label=label) for label, own in marks]
    figure.legend(
        handles=handles,
        title=_short(title),
        loc="outside lower center",
        ncols=min(len(marks), columns),
        frameon=False,
        fontsize=9,
    )


def _map(axes: Axes, found: Map, method: str, coloured: Colouring | None) -> None:
    points = found.coordinates[method]
    frame = box(points)
    _contours(axes, points, frame)
    x, y = frame.within(points).T
    size = float(np.clip(2e4 / len(points), 3, 30) ** 0.5)
    if found.space is None or coloured is None:
        colours = [NOISE if found.space is None else PALETTE[0]]
        axes.scatter(x, y, s=size, c=colours * len(x), linewidths=0, alpha=0.6, rasterized=True)
    else:
        kinds = coloured.rows[found.space][found.rows]
        kinds = np.where(kinds < len(PALETTE), kinds, -1)
        order = np.argsort(kinds >= 0, kind="stable")  # grey lies below
        colours = [PALETTE[kind] if kind >= 0 else GREY for kind in kinds[order]]
        axes.scatter(x[order], y[order], s=size, c=colours, linewidths=0, alpha=0.75, rasterized=True)
    axes.set(xlim=(0, 1), ylim=(0, 1), xticks=[], yticks=[], aspect="equal")


def _contours(axes: Axes, points: Float64s, frame: Box) -> None:
    found = density(points, frame)
    centres = (np.arange(CELLS) + 0.5) / CELLS
    levels = [*found.levels, found.values.max() * 1.001]
    axes.contourf(centres, centres, found.values, levels, colors=["#e8ecf1", "#d3dae3", "#b9c3cf"], zorder=0)
    axes.contour(centres, centres, found.values, found.levels, colors="#64748b", linewidths=0.7, zorder=3)


def _spectrum(diagnosed: Sequence[Diagnosed]) -> Figure:
    figure = _figure(7.5, 4.8)
    axes = figure.subplots()
    for curve in spectra(diagnosed):
        colour = NOISE if curve.colour is None else PALETTE[curve.colour]
        ranks = np.arange(1, len(curve.values) + 1)
        width = 1.8 if curve.dash == PLAIN else 1.3
        axes.plot(ranks, curve.values, DASHES[curve.dash], color=colour, linewidth=width, label=_short(curve.label))
    axes.legend(frameon=False, fontsize=9)
    axes.set_ylim(bottom=0)
    _plain(
        axes, "Spectrum: a flat curve is noise, a steep one a subspace", "component", "singular value over their mean"
    )
    return figure


def _norms(diagnosed: Sequence[Diagnosed], maps: Sequence[Map]) -> Figure:
    known = [index for index, each in enumerate(diagnosed) if each.space.popularity is not None]
    figure = _figure(4.2 * len(known), 4)
    panels = figure.subplots(1, len(known), squeeze=False)[0]
    for axes, index in zip(panels, known, strict=True):
        each = diagnosed[index]
        x, y = norm_points(each.space, maps[index].rows)
        colour, size, alpha = PALETTE[index % len(PALETTE)], *((5, 0.4) if len(x) > FEW else (16, 0.8))
        axes.scatter(x, y, s=size, color=colour, linewidths=0, alpha=alpha, rasterized=True)
        axes.plot(*medians(x, y), color="black", linewidth=1.6, label="running median")
        ticks = popularity_ticks(x)
        axes.set_xticks([at for at, _ in ticks], [label for _, label in ticks])
        axes.set_ylim(bottom=0)
        correlation = each.measures["norm_popularity"]
        said = "" if correlation is None else f"\nrank correlation {correlation:+.2f}"
        _plain(axes, _short(each.space.name) + said, "interactions in training", "norm")
    panels[0].legend(frameon=False, fontsize=8)
    return figure


def _cosines(diagnosed: Sequence[Diagnosed]) -> Figure:
    rows = cosine_rows(diagnosed)
    figure = _figure(7.5, 1.2 + 0.42 * len(rows))
    axes = figure.subplots()
    for index, row in enumerate(rows):
        colour = NOISE if row.colour is None else PALETTE[row.colour]
        least, low, middle, high, most = row.quantiles
        axes.plot([least, most], [index, index], color=colour, linewidth=1.5)
        axes.barh(index, high - low, left=low, height=0.5, color=colour, alpha=0.55)
        axes.plot([middle, middle], [index - 0.32, index + 0.32], color=colour, linewidth=2.5)
    axes.axvline(0, color="#64748b", linewidth=0.8, linestyle=":")
    axes.set_yticks(range(len(rows)), [_short(row.label) for row in rows])
    axes.invert_yaxis()
    _plain(axes, "Cosines of pairs: 5, 25, 50, 75 and 95 % quantiles", "cosine of two items", "")
    return figure


def _plain(axes: Axes, title: str, x: str, y: str) -> None:
    axes.set_title(title, loc="left", fontsize=10)
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    axes.spines[["top", "right"]].set_visible(False)


def _short(text: str, most: int = 32) -> str:
    """Return a name as matplotlib takes it literally, and no longer than there is room for."""
    short = text if len(text) <= most else text[: most - 1] + "…"
    return short.replace("$", r"\$")
