"""Density of the points of a map, and contours that enclose shares of them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.ndimage import gaussian_filter

from adrec.nn.spectrum import Float64s

CELLS = 120  # of the grid along a side
MARGIN = 0.27  # around the points, of their extent, times n^(-1/6): the kernel is wider where they are few
LEVELS = (0.9, 0.6, 0.3)  # shares of the points within a contour, outermost first


@dataclass(frozen=True)
class Box:
    """The square that a map is drawn in.

    Attributes:
        x: the left side.
        y: the lower side.
        side: its length.
    """

    x: float
    y: float
    side: float

    def within(self, points: Float64s) -> Float64s:
        """Return points as shares of the side, from the lower left corner."""
        shares: Float64s = (points - (self.x, self.y)) / self.side
        return shares


@dataclass(frozen=True, eq=False)
class Density:
    """A density over the cells of a box.

    Attributes:
        values: points in each cell, smoothed, [CELLS, CELLS]; the first axis is y.
        levels: densities that enclose the shares in :data:`LEVELS`, rising; less than three where they are the same.
    """

    values: Float64s
    levels: Float64s


def box(points: Float64s) -> Box:
    """Return the smallest square around points [m, 2], with a margin: both axes keep one scale."""
    low, high = points.min(0), points.max(0)
    side = float((high - low).max()) * (1 + 2 * MARGIN * len(points) ** (-1 / 6)) or 1.0
    x, y = (low + high - side) / 2
    return Box(float(x), float(y), side)


def density(points: Float64s, frame: Box) -> Density:
    """Return the density of points: a histogram under a Gaussian kernel of the width that Scott (1992) gives."""
    shares = frame.within(points)
    counts, _, _ = np.histogram2d(shares[:, 1], shares[:, 0], bins=CELLS, range=((0, 1), (0, 1)))
    width = len(points) ** (-1 / 6) * shares.std(0)[::-1] * CELLS  # of y and x, in cells
    values: Float64s = gaussian_filter(counts, width.clip(min=1.0), mode="constant")
    falling = np.sort(values, axis=None)[::-1]
    within = np.searchsorted(np.cumsum(falling) / falling.sum(), LEVELS)
    return Density(values, np.unique(falling[within.clip(max=falling.size - 1)]))


def outlines(found: Density) -> list[list[Float64s]]:
    """Return the contours of each level, as lines of points in shares of the box's side, [p, 2] each."""
    from contourpy import contour_generator  # noqa: PLC0415

    # A rim of zeros closes the lines at the border.
    values = np.pad(found.values, 1)
    centres = (np.arange(-1, CELLS + 1) + 0.5) / CELLS
    generator = contour_generator(centres, centres, values)
    return [[np.asarray(line) for line in generator.lines(level)] for level in found.levels]
