"""Charts of a diagnosis as inline SVG, in the colours of the page around them."""

from __future__ import annotations

import html
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from adrec.diagnose.attributes import PALETTE
from adrec.diagnose.curves import FEW, PLAIN, cosine_rows, medians, norm_points, popularity_ticks, spectra
from adrec.diagnose.diagnosis import Diagnosed
from adrec.diagnose.maps import Rows
from adrec.nn.spectrum import Float64s

WIDTH, HEIGHT = 420, 260
LEFT, RIGHT, TOP, BOTTOM = 44, 10, 10, 40

Tick = tuple[float, str]


@dataclass(frozen=True)
class Plot:
    """The frame of a chart.

    Attributes:
        x: least and most of what is drawn, left to right.
        y: the same, bottom to top.
    """

    x: tuple[float, float]
    y: tuple[float, float]

    def across(self, values: Float64s) -> Float64s:
        """Return the horizontal positions of values, from the left."""
        return LEFT + (values - self.x[0]) / (self.x[1] - self.x[0]) * (WIDTH - LEFT - RIGHT)

    def down(self, values: Float64s) -> Float64s:
        """Return the vertical positions of values, from the top."""
        return HEIGHT - BOTTOM - (values - self.y[0]) / (self.y[1] - self.y[0]) * (HEIGHT - TOP - BOTTOM)

    def line(self, x: Float64s, y: Float64s, kind: str) -> str:
        """Return a line through points."""
        points = " ".join(f"{a:.1f},{b:.1f}" for a, b in zip(self.across(x), self.down(y), strict=True))
        return f'<polyline class="{kind}" points="{points}"/>'

    def points(self, x: Float64s, y: Float64s) -> str:
        """Return points as one path of dots, which a browser draws faster than a circle each."""
        dots = zip(self.across(x), self.down(y), strict=True)
        kind = "points" if len(x) > FEW else "points few"
        return f'<path class="{kind}" d="{"".join(f"M{a:.1f} {b:.1f}h0" for a, b in dots)}"/>'

    def drawn(self, inside: Iterable[str], x: Sequence[Tick], y: Sequence[Tick], labels: tuple[str, str]) -> str:
        """Return the chart with its content, ticks and axis labels."""
        foot = HEIGHT - BOTTOM
        parts = [f'<line class="grid" x1="{LEFT}" y1="{foot}" x2="{WIDTH - RIGHT}" y2="{foot}"/>']
        for at, (_, label) in zip(self.across(np.array([tick for tick, _ in x])), x, strict=True):
            parts.append(f'<text x="{at:.1f}" y="{foot + 16}" text-anchor="middle">{label}</text>')
        for at, (_, label) in zip(self.down(np.array([tick for tick, _ in y])), y, strict=True):
            parts.append(f'<line class="grid" x1="{LEFT}" y1="{at:.1f}" x2="{WIDTH - RIGHT}" y2="{at:.1f}"/>')
            parts.append(f'<text x="{LEFT - 6}" y="{at + 4:.1f}" text-anchor="end">{label}</text>')
        parts.append(f'<text x="{(WIDTH + LEFT) / 2}" y="{HEIGHT - 6}" text-anchor="middle">{labels[0]}</text>')
        return svg(f"{labels[1]} by {labels[0]}", HEIGHT, [*parts, *inside])


def svg(label: str, height: int, parts: Iterable[str]) -> str:
    """Return an SVG element of the width of a chart."""
    head = f'<svg role="img" aria-label="{html.escape(label)}" viewBox="0 0 {WIDTH} {height}">'
    return head + "".join(parts) + "</svg>"


def ticks(least: float, most: float, count: int = 6) -> list[Tick]:
    """Return round numbers between two, ``count`` of them or so, with what they are called."""
    rough = (most - least) / count or 1.0
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1, 2, 2.5, 5, 10) if factor * power >= rough * 0.999)
    first, last = math.ceil(least / step - 1e-9), math.floor(most / step + 1e-9)
    return [(k * step, f"{k * step:.6g}") for k in range(first, last + 1)]


def colour(index: int | None) -> str:
    """Return the class of a colour of the palette; None is the Gaussian's."""
    return "noise" if index is None else f"c{index}"


def spectrum_chart(diagnosed: Sequence[Diagnosed]) -> str:
    """Return the spectra of spaces, their references dashed, with a legend."""
    curves = spectra(diagnosed)
    plot = Plot((1, max(2, *(len(each.values) for each in curves))), (0, max(each.values.max() for each in curves)))
    lines = [
        f'<g class="{colour(each.colour)}">'
        + plot.line(np.arange(1.0, len(each.values) + 1), each.values, f"line {each.dash}")
        + "</g>"
        for each in reversed(curves)  # the spaces' own above the others
    ]
    across = [(1.0, "1"), *(tick for tick in ticks(*plot.x) if tick[0] >= 2 and tick[0] % 1 == 0)]
    chart = plot.drawn(lines, across, ticks(*plot.y), ("component", "singular value over the mean"))
    keys = "".join(
        f'<li class="{colour(each.colour)}"><svg class="swatch" viewBox="0 0 32 12" aria-hidden="true">'
        f'<line class="line {each.dash}" x1="0" y1="6" x2="32" y2="6"/></svg>{_ink(each.label)}</li>'
        for each in curves
    )
    return f'{chart}<ul class="legend">{keys}</ul>'


def _ink(text: str) -> str:
    return f'<span class="ink">{html.escape(text)}</span>'


def norms_chart(each: Diagnosed, index: int, rows: Rows) -> str:
    """Return the norms of some rows of a space by their popularity, which must be known."""
    x, y = norm_points(each.space, rows)
    plot = Plot((float(x.min()) - 0.1, float(x.max()) + 0.1), (0, float(y.max()) * 1.05 or 1.0))
    inside = [
        f'<g class="{colour(index % len(PALETTE))}">{plot.points(x, y)}</g>',
        plot.line(*medians(x, y), "median"),
    ]
    return plot.drawn(inside, popularity_ticks(x), ticks(*plot.y), ("interactions in training", "norm"))


def cosines_chart(diagnosed: Sequence[Diagnosed]) -> str:
    """Return a bar for each space, and for noise: quantiles of the cosines of pairs."""
    rows = cosine_rows(diagnosed)
    values = [value for row in rows for value in row.quantiles]
    least, most = min(*values, 0.0), max(*values, 0.0)
    room = 0.04 * (most - least) or 0.1
    plot, height = Plot((least - room, most + room), (0, 1)), 44 * len(rows) + 46
    foot, parts = height - 40, []
    marks = ticks(*plot.x)
    for at, (tick, label) in zip(plot.across(np.array([tick for tick, _ in marks])), marks, strict=True):
        kind = "grid zero" if tick == 0 else "grid"
        parts.append(f'<line class="{kind}" x1="{at:.1f}" y1="4" x2="{at:.1f}" y2="{foot}"/>')
        parts.append(f'<text x="{at:.1f}" y="{foot + 16}" text-anchor="middle">{label}</text>')
    for index, row in enumerate(rows):
        a, b, c, d, e = plot.across(np.array(row.quantiles))
        top = 44 * index + 28
        parts.append(
            f'<text class="name" x="{LEFT}" y="{top - 12}">{html.escape(_cut(row.label))}</text>'
            f'<g class="{colour(row.colour)}">'
            f'<line class="line {PLAIN}" x1="{a:.1f}" y1="{top}" x2="{e:.1f}" y2="{top}"/>'
            f'<rect class="half" x="{b:.1f}" y="{top - 6}" width="{max(d - b, 0.5):.1f}" height="12"/>'
            f'<line class="line" x1="{c:.1f}" y1="{top - 8}" x2="{c:.1f}" y2="{top + 8}" stroke-width="3"/></g>'
        )
    parts.append(f'<text x="{(WIDTH + LEFT) / 2}" y="{height - 6}" text-anchor="middle">cosine of two items</text>')
    return svg("quantiles of the cosines of pairs", height, parts)


def _cut(text: str, most: int = 44) -> str:
    return text if len(text) <= most else text[: most - 1] + "…"
