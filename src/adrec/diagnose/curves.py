"""Data of the charts of a diagnosis: spectra, norms by popularity, cosines."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from adrec.diagnose.attributes import PALETTE
from adrec.diagnose.diagnosis import Diagnosed, Space
from adrec.diagnose.measures import Measures
from adrec.diagnose.verdict import GAUSSIAN, SHUFFLED, STAGE_1
from adrec.nn.spectrum import Float64s, lengths

PLAIN, DASHED = "solid", "dashed"
REFERENCE_DASHES = {SHUFFLED: "dotted", STAGE_1: "dash-dot"}
FEW = 500  # points that may be drawn large
NEVER = 0.5  # where an item without interactions stands on a logarithmic axis


@dataclass(frozen=True, eq=False)
class Curve:
    """A line of a chart.

    Attributes:
        label: in the legend.
        values: singular values over their mean, [D].
        colour: an index of the palette; None for the Gaussian's.
        dash: ``solid``, ``dashed``, ``dotted`` or ``dash-dot``.
    """

    label: str
    values: Float64s
    colour: int | None
    dash: str


@dataclass(frozen=True)
class Row:
    """A row of the chart of cosines.

    Attributes:
        label: beside it.
        quantiles: of 5, 25, 50, 75 and 95 %.
        colour: an index of the palette; None for the Gaussian's.
    """

    label: str
    quantiles: tuple[float, ...]
    colour: int | None


def spectra(diagnosed: Sequence[Diagnosed]) -> list[Curve]:
    """Return the spectra of spaces, then those of their references; one Gaussian stands for all of its shape."""
    curves = [
        Curve(each.space.name, _over_mean(each.measures), index % len(PALETTE), PLAIN)
        for index, each in enumerate(diagnosed)
    ]
    shapes: dict[tuple[int, int], Measures] = {}
    for each in diagnosed:
        random = each.references[GAUSSIAN]
        shapes.setdefault((random.items, random.size), random)
    for (items, size), random in shapes.items():
        label = f"{GAUSSIAN}, {items:,} x {size}" if len(shapes) > 1 else GAUSSIAN
        curves.append(Curve(label, _over_mean(random), None, DASHED))
    for index, each in enumerate(diagnosed):
        for name, measures in each.references.items():
            if name != GAUSSIAN:
                label, dash = f"{name} of {each.space.name}", REFERENCE_DASHES.get(name, DASHED)
                curves.append(Curve(label, _over_mean(measures), index % len(PALETTE), dash))
    return curves


def _over_mean(measures: Measures) -> Float64s:
    values = np.array(measures.singular_values)
    return values / (values.mean() or 1.0)


def cosine_rows(diagnosed: Sequence[Diagnosed]) -> list[Row]:
    """Return the quantiles of cosines of spaces, and of the first one's Gaussian."""
    rows = [
        Row(each.space.name, tuple(each.measures.cosine_quantiles.values()), index % len(PALETTE))
        for index, each in enumerate(diagnosed)
    ]
    return [*rows, Row(GAUSSIAN, tuple(diagnosed[0].references[GAUSSIAN].cosine_quantiles.values()), None)]


def norm_points(space: Space, rows: NDArray[np.int64]) -> tuple[Float64s, Float64s]:
    """Return for some rows the logarithm (base 10) of the interactions and the length, [m] each.

    An item without interactions counts as half a one.
    """
    assert space.popularity is not None
    return np.log10(np.maximum(space.popularity[rows], NEVER)), lengths(space.embedding[rows])


def medians(x: Float64s, y: Float64s) -> tuple[Float64s, Float64s]:
    """Return the medians of x and y in parts of as many points, by x: tenths, or fewer parts of twenty points.

    Parts of one x are one part.
    """
    parts = np.array_split(np.argsort(x, kind="stable"), min(max(len(x) // 20, 1), 10))
    middle = np.array([np.median(x[part]) for part in parts])
    middles = np.unique(middle)
    together = [np.concatenate([p for p, at in zip(parts, middle, strict=True) if at == index]) for index in middles]
    return middles, np.array([np.median(y[part]) for part in together])


def popularity_ticks(x: Float64s) -> list[tuple[float, str]]:
    """Return the ticks of an axis of the logarithm of interactions: 1, 3, 10, 30 ..., and 0 where an item has none.

    If fewer than three of these are on the axis, there are more: 1, 2, 3, 4, 5, 6 ..
    """
    inside: list[tuple[float, str]] = []
    for factors in ((1, 3), (1, 2, 5), range(1, 10)):
        counts = [factor * 10**power for power in range(10) for factor in factors]
        inside = [(float(np.log10(count)), f"{count:,}") for count in counts if x.min() <= np.log10(count) <= x.max()]
        if len(inside) > 2:
            break
    return [(float(np.log10(NEVER)), "0"), *inside] if x.min() < 0 else inside or [(0.0, "1")]
