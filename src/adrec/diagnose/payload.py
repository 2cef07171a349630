"""JSON data of the HTML report's script: maps as small integers, with each list of ids stored once."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import numpy as np

from adrec.diagnose.attributes import PALETTE, Colouring
from adrec.diagnose.density import box, density, outlines
from adrec.diagnose.diagnosis import Diagnosed
from adrec.diagnose.maps import PCA, TSNE, Map, Rows
from adrec.nn.spectrum import Float64s

SCALE = 2000  # the side of a map: a step is less than a dot
MOST_CHARACTERS = 120  # of an id or a value that is shown


class _Arrays:
    """Lists by number, each of which is kept once."""

    def __init__(self) -> None:
        self.kept: list[list[Any]] = []

    def add(self, values: list[Any] | None) -> int | None:
        if values is None:
            return None
        if values not in self.kept:
            self.kept.append(values)
        return self.kept.index(values)


def payload(diagnosed: Sequence[Diagnosed], maps: Sequence[Map], coloured: Colouring | None) -> str:
    """Return JSON that may stand in a script element: it holds no ``<``, ``>`` or ``&``."""
    arrays, used = _Arrays(), _used(maps, coloured)
    found = {
        "scale": SCALE,
        "colours": len(PALETTE),
        "methods": [TSNE, PCA],
        "values": [] if coloured is None else [coloured.values[k][:MOST_CHARACTERS] for k in used],
        "maps": [_map(diagnosed, each, _values(each, coloured, used), arrays) for each in maps],
        "arrays": arrays.kept,
    }
    text = json.dumps(found, separators=(",", ":"))
    return text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e")


def _used(maps: Sequence[Map], coloured: Colouring | None) -> Rows:
    """Return which values of an attribute are coloured or on a map, the coloured ones first."""
    if coloured is None:
        return np.arange(0)
    shown = [coloured.rows[each.space][each.rows] for each in maps if each.space is not None]
    found = np.unique(np.concatenate([np.arange(len(coloured.labels)), *shown]))
    return found[found >= 0]


def _values(each: Map, coloured: Colouring | None, used: Rows) -> list[int] | None:
    """Return for each point the index of its value among the used ones, -1 if unknown."""
    if coloured is None or each.space is None:
        return None
    own = coloured.rows[each.space][each.rows]
    return [int(k) for k in np.where(own < 0, -1, np.searchsorted(used, own))]


def _map(diagnosed: Sequence[Diagnosed], each: Map, values: list[int] | None, arrays: _Arrays) -> dict[str, Any]:
    ids = counts = None
    if each.space is not None:
        space = diagnosed[each.space].space
        ids = (
            [f"row {row}" for row in each.rows] if space.ids is None else _texts(space.ids.gather(each.rows).to_list())
        )
        counts = None if space.popularity is None else space.popularity[each.rows].tolist()
    drawn = {method: _drawn(points) for method, points in each.coordinates.items()}
    return {
        "name": each.name,
        "ids": arrays.add(ids),
        "counts": arrays.add(counts),
        "values": arrays.add(values),
        "at": {method: at for method, (at, _) in drawn.items()},
        "contours": {method: contours for method, (_, contours) in drawn.items()},
    }


def _texts(ids: list[Any]) -> list[str]:
    return [str(each)[:MOST_CHARACTERS] for each in ids]


def _drawn(points: Float64s) -> tuple[list[int], list[str]]:
    """Return points as x, y, x, y ... from the upper left corner, and a path for each contour."""
    frame = box(points)
    levels = outlines(density(points, frame))
    return _scaled(frame.within(points)).ravel().tolist(), [" ".join(_path(line) for line in level) for level in levels]


def _scaled(shares: Float64s) -> Rows:
    return np.rint(np.column_stack([shares[:, 0], 1 - shares[:, 1]]) * SCALE).astype(np.int64)


def _path(line: Float64s) -> str:
    points = _scaled(line)
    kept = np.append(True, (np.diff(points, axis=0) != 0).any(1))
    return "M" + "L".join(f"{x} {y}" for x, y in points[kept]) + "Z"
