"""Spans of flat arrays: the positions between start and end, for many spans at once."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Int64s = NDArray[np.int64]


def spans(starts: Int64s, lengths: Int64s) -> Int64s:
    """Return the positions ``start, start + 1, ..`` of each span, one span after the other."""
    offsets = np.cumsum(lengths) - lengths
    positions: Int64s = np.arange(int(lengths.sum())) + np.repeat(starts - offsets, lengths)
    return positions
