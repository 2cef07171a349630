"""Embedding spaces whose verdict is known."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Matrix = NDArray[np.float32]


def gaussian(n: int = 300, size: int = 8, seed: int = 0) -> Matrix:
    return np.random.default_rng(seed).standard_normal((n, size)).astype(np.float32)


def clusters(n: int = 300, size: int = 8, seed: int = 1) -> Matrix:
    """Return rows around five centres."""
    rng = np.random.default_rng(seed)
    centres = 3 * rng.standard_normal((5, size))
    return (centres[rng.integers(5, size=n)] + 0.3 * rng.standard_normal((n, size))).astype(np.float32)
