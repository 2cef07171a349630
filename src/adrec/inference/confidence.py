"""The confidence of a recommendation: the probability that the item is the next one, calibrated on validation.

A model's softmax over the items that may be recommended gives a probability p. It is mapped to the observed share of
hits by a logistic regression on its log-odds (Platt 1999, "Probabilistic Outputs for Support Vector Machines").
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit

from adrec.data.spans import Int64s
from adrec.inference.scorer import Histories, Scorer, top_k

TOP = 20  # items of each validation history that calibration looks at
STEPS = 50  # of Newton's method, at most
SMALL = 1e-9

Float64s = NDArray[np.float64]


@dataclass(frozen=True)
class Calibration:
    """Maps a softmax probability p to ``sigmoid(slope * logit(p) + intercept)``.

    Attributes:
        slope: 1 for a softmax that is as sure as it should be, below 1 for one that is too sure.
        intercept: 0 for a softmax that is calibrated.
    """

    slope: float
    intercept: float

    def __call__(self, log_p: NDArray[np.floating]) -> NDArray[np.float32]:
        """Return the confidence of probabilities given by their logarithms."""
        found: NDArray[np.float32] = expit(self.slope * log_odds(log_p) + self.intercept).astype(np.float32)
        return found


def log_odds(log_p: NDArray[np.floating]) -> Float64s:
    """Return ``log(p / (1 - p))`` of probabilities given by their logarithms."""
    exact = np.minimum(log_p.astype(np.float64), -SMALL)  # p = 1 has no finite log-odds
    odds: Float64s = exact - np.log1p(-np.exp(exact))
    return odds


def calibrate(scorer: Scorer, histories: Histories, items: Int64s) -> Calibration | None:
    """Return the calibration of a model on held-out ``items`` [m] and the ``histories`` before each.

    The first :data:`TOP` items of each ranking count, without the items of the history. Returns None if hits and misses
    do not determine it: there are no hits, or the model's probabilities do not rise with them.
    """
    known = histories.known(scorer.num_items)
    spoken = np.flatnonzero(known.ends > known.starts)
    if len(spoken) == 0:
        return None
    some = Histories(known.items, known.starts[spoken], known.ends[spoken])
    best = top_k(scorer, some, TOP)
    shown = best.items > 0
    hits = (best.items == items[spoken, None])[shown]
    found = _logistic(log_odds(best.log_p[shown]), hits)
    return found if found is not None and found.slope > 0 else None


def _logistic(x: Float64s, hits: NDArray[np.bool_]) -> Calibration | None:
    """Fit ``P(hit) = sigmoid(slope x + intercept)`` by Newton's method; None if it does not converge."""
    if hits.all() or not hits.any() or np.ptp(x) == 0:
        return None
    features = np.stack([x, np.ones_like(x)], axis=1)  # [n, 2]
    weights = np.array([1.0, 0.0])
    for _ in range(STEPS):
        p = expit(features @ weights)
        slope = features.T @ (hits - p)
        curvature = (features * (p * (1 - p))[:, None]).T @ features
        try:
            step = np.linalg.solve(curvature, slope)
        except np.linalg.LinAlgError:
            return None
        weights = weights + step
        if not np.isfinite(weights).all():
            return None
        if np.abs(step).max() < SMALL:
            return Calibration(float(weights[0]), float(weights[1]))
    return None
