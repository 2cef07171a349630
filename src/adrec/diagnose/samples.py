"""Values of measures over samples of rows, with their sampling errors."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from adrec.nn.spectrum import Matrix, Rows

SAMPLES = 3  # the largest number of samples of a measure


@dataclass(frozen=True)
class Value:
    """A measure's value.

    Attributes:
        value: None where it is not defined for the embedding.
        error: standard error of the sampling; 0 where everything was looked at.
        published: the value of the authors' variant, where that is another.
    """

    value: float | None
    error: float = 0.0
    published: float | None = None


class Samples:
    """Means over samples of rows, with their standard errors."""

    def __init__(self, rows: Rows, seed: int) -> None:
        self.rows, self.seed = rows, seed
        self.largest = 0

    def mean(self, measured: Callable[[Matrix], float | None], size: int) -> Value:
        """Return ``measured`` of all rows where they are no more than ``size``, else its mean over samples."""
        if len(self.rows) <= size:
            return Value(measured(self.rows[:]))
        size = min(size, len(self.rows) // 2)  # two samples at least, so that their spread is known
        self.largest = max(self.largest, size)
        count = min(len(self.rows) // size, SAMPLES)
        order = np.random.default_rng(self.seed).permutation(len(self.rows))
        parts = np.split(order[: count * size], count)
        found = [measured(self.rows[np.sort(part)]) for part in parts]
        known = np.array([each for each in found if each is not None])
        if len(known) < 2:
            return Value(None)
        return Value(float(known.mean()), float(known.std(ddof=1) / np.sqrt(len(known))))
