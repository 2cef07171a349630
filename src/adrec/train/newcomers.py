"""Vectors of items that are never a target of training, from their features.

A softmax pushes the vector of an item that is never a target away from every query, so after the training these items
get another: a ridge regression of the learned vectors on the features predicts it (attribute-to-feature mapping,
Gantner et al. 2010, "Learning Attribute-to-Feature Mappings for Cold-Start Recommendations"). The regression is
weighted by how much is known of an item, and its penalty has the least leave-one-out error.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from adrec.data.sequences import Sequences
from adrec.data.spans import Int64s, spans
from adrec.utils.text import counted

PENALTIES = tuple(float(10.0**power) for power in range(-3, 6))
HALF = 5.0  # interactions with which an item has half the weight of a well-known one
FEWEST = 2  # items from whose vectors others can be predicted


@dataclass(frozen=True)
class Placed:
    """What came of the prediction.

    Attributes:
        items: the items that got a vector, int64.
        without: the number of items that have neither interactions nor features.
        explained: the share of the variance of known items' vectors that others' features predict, leave-one-out.
        penalty: the penalty of the regression.
    """

    items: Int64s
    without: int
    explained: float
    penalty: float

    def sentence(self) -> str:
        """Return it in words."""
        others = (
            f"; {counted(self.without, 'item')} that are never a target have none, and rank last"
            if self.without
            else ""
        )
        if not len(self.items):
            return f"every item with features is a target, or too few are: no vector was predicted{others}."
        return (
            f"{counted(len(self.items), 'item')} that are never a target got vectors from their features, which "
            f"explain {self.explained:.0%} of the others' (leave-one-out){others}."
        )


def target_counts(sequences: Sequences, num_items: int) -> Int64s:
    """Return how often each item is a target of training, with a weight above 0, int64 [V + 1]."""
    lengths = np.minimum(sequences.ends - sequences.starts - 1, sequences.max_length)
    positions = spans(sequences.ends - lengths, lengths)
    if sequences.weights is not None:
        positions = positions[np.asarray(sequences.weights)[positions] > 0]
    return np.bincount(sequences.items[positions], minlength=num_items + 1)


@torch.no_grad()
def place_new_items(embedding: Tensor, features: NDArray[np.float32], counts: Int64s) -> Placed:
    """Predict the vectors of items without training interactions, and write them into ``embedding`` in place.

    Args:
        embedding: the trained item vectors, [V + 1 or more, D].
        features: a vector of each item, [V + 1, F]; NaN where there is none.
        counts: how often each item is a target of training, [V + 1].
    """
    items = np.arange(len(features))
    new = items[(counts == 0) & (items > 0)]
    regression, placed = predict_vectors(embedding, features, counts, items[counts > 0], new)
    without = len(new) - len(placed)
    if regression is None:
        return Placed(placed, without, 0.0, 0.0)
    return Placed(placed, without, regression.explained, regression.penalty)


@torch.no_grad()
def predict_vectors(
    embedding: Tensor, features: NDArray[np.float32], counts: Int64s, known: Int64s, new: Int64s
) -> tuple[Ridge | None, Int64s]:
    """Write the vectors of ``new`` items into ``embedding``, as their features predict from those of ``known`` items.

    Returns the regression, None without enough items, and the items that got a vector. The arguments are those of
    :func:`place_new_items`.
    """
    has = np.isfinite(features).all(axis=1) & (np.arange(len(features)) > 0)
    known, new = known[has[known]], new[has[new]]
    if len(known) < FEWEST or len(new) == 0:
        return None, new[:0]
    x, y = features[known].astype(np.float64), embedding[torch.from_numpy(known)].double().cpu().numpy()
    weights = counts[known] / (counts[known] + HALF)
    regression = Ridge.of(x, y, weights)
    found = torch.from_numpy(regression(features[new].astype(np.float64)))
    embedding[torch.from_numpy(new)] = found.to(embedding.dtype).to(embedding.device)
    return regression, new


@dataclass(frozen=True)
class Ridge:
    """A weighted ridge regression of vectors [n, D] on features [n, F], with an intercept.

    Attributes:
        mean: the weighted mean of the features, [F].
        scale: their standard deviation, [F]; 1 where it is 0.
        intercept: [D].
        slope: [F, D].
        penalty: the penalty with the least leave-one-out error.
        explained: the share of the variance that it explains, leave-one-out; 0 if none.
    """

    mean: NDArray[np.float64]
    scale: NDArray[np.float64]
    intercept: NDArray[np.float64]
    slope: NDArray[np.float64]
    penalty: float
    explained: float

    @classmethod
    def of(cls, x: NDArray[np.float64], y: NDArray[np.float64], weights: NDArray[np.float64]) -> Ridge:
        """Fit the regression of ``y`` on ``x`` with the ``weights`` [n] of the rows."""
        share = weights / weights.sum()
        mean, intercept = share @ x, share @ y
        scale = np.sqrt(share @ (x - mean) ** 2)
        scale[scale == 0] = 1.0
        root = np.sqrt(weights)[:, None]
        a, b = root * (x - mean) / scale, root * (y - intercept)
        values, vectors = np.linalg.eigh(a.T @ a)  # [F], [F, F]
        values = values.clip(min=0)
        rotated, along = a @ vectors, vectors.T @ (a.T @ b)  # [n, F], [F, D]
        best = (np.inf, PENALTIES[-1])
        for penalty in PENALTIES:
            kept = 1 / (values + penalty)
            leverage = (rotated**2 @ kept + share).clip(max=1 - 1e-9)  # of the slope, and of the intercept
            left = (b - rotated @ (kept[:, None] * along)) / (1 - leverage)[:, None]
            best = min(best, (float((left**2).sum()), penalty))
        error, penalty = best
        slope = vectors @ (along / (values + penalty)[:, None])
        return cls(mean, scale, intercept, slope, penalty, max(0.0, 1 - error / float((b**2).sum())))

    def __call__(self, x: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the predicted vectors of some features, [n, F] -> [n, D]."""
        predicted: NDArray[np.float64] = self.intercept + ((x - self.mean) / self.scale) @ self.slope
        return predicted
