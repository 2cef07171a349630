"""Measures over pairs of items: similarity, distance, uniformity, alignment and hubness."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from adrec.nn.spectrum import Float64s, Matrix, Rows, blocks, unit

MOST_PAIRS = 1_000_000  # looked at one by one: all where there are no more, else drawn
AT_ONCE = 1 << 15  # pairs that are held at a time
NEIGHBOURS = 10
QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)


@dataclass(frozen=True)
class Sampled:
    """A mean over pairs.

    Attributes:
        value: the mean.
        error: its standard error; 0 where all pairs were looked at.
    """

    value: float
    error: float = 0.0


@dataclass(frozen=True)
class PairStatistics:
    """What pairs of distinct rows are like.

    Attributes:
        cosine: mean cosine similarity, exact.
        cosine_deviation: its standard deviation over pairs, exact.
        cosine_quantiles: of :data:`QUANTILES`.
        distance: mean Euclidean distance.
        uniformity: log of the mean of ``exp(-2 |u - v|^2)`` over unit vectors (Wang and Isola 2020).
    """

    cosine: float
    cosine_deviation: float
    cosine_quantiles: tuple[float, ...]
    distance: Sampled
    uniformity: Sampled


def distinct(embedding: Matrix | Rows, seed: int) -> float:
    """Return the share of rows that are the first of their kind: 1 where no two are alike.

    Rows are told apart by their product with a random vector.
    """
    direction = np.random.default_rng(seed).standard_normal(embedding.shape[1])
    products = np.concatenate([block @ direction for block in blocks(embedding)])
    return len(np.unique(products)) / len(products)


def pairs(embedding: Matrix | Rows, seed: int) -> PairStatistics:
    """Measure pairs of rows, each of which has a length."""
    n = len(embedding)
    total, gram = np.zeros(embedding.shape[1]), np.zeros((embedding.shape[1],) * 2)
    for block in blocks(embedding):
        directions = unit(block)
        total += directions.sum(0)
        gram += directions.T @ directions
    # All n^2 products add up to |sum u|^2, and their squares to |U^T U|^2; n of them are rows with themselves.
    cosine = float((total @ total - n) / (n * (n - 1)))
    square = float(((gram**2).sum() - n) / (n * (n - 1)))
    cosines, distances, every = _looked_at(embedding, np.random.default_rng(seed))
    potential = np.exp(-4 * (1 - cosines))  # |u - v|^2 = 2 - 2 cos
    mean = Sampled(float(potential.mean()), _error(potential, every))
    return PairStatistics(
        cosine,
        float(np.sqrt(max(square - cosine**2, 0.0))),
        tuple(float(each) for each in np.quantile(cosines, QUANTILES)),
        Sampled(float(distances.mean()), _error(distances, every)),
        Sampled(float(np.log(mean.value)), mean.error / mean.value),
    )


def _looked_at(embedding: Matrix | Rows, rng: np.random.Generator) -> tuple[Float64s, Float64s, bool]:
    """Return cosine and distance of all pairs, or of some that are drawn, and whether these are all."""
    n = len(embedding)
    every = n * (n - 1) // 2 <= MOST_PAIRS
    if every:
        one, other = np.triu_indices(n, k=1)
    else:
        one = rng.integers(n, size=MOST_PAIRS)
        other = (one + rng.integers(1, n, size=MOST_PAIRS)) % n
    cosines, distances = np.empty(len(one)), np.empty(len(one))
    for first in range(0, len(one), AT_ONCE):
        some = slice(first, first + AT_ONCE)
        a, b = embedding[one[some]].astype(np.float64), embedding[other[some]].astype(np.float64)
        cosines[some] = (a * b).sum(1) / (np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1))
        distances[some] = np.linalg.norm(a - b, axis=1)
    return cosines, distances, every


def _error(values: Float64s, every: bool) -> float:
    return 0.0 if every else float(values.std() / np.sqrt(len(values)))


def alignment(embedding: Matrix, one: NDArray[np.int64], other: NDArray[np.int64], *, every: bool) -> Sampled | None:
    """Return the mean of ``|u - v|^2`` over positive pairs of unit vectors (Wang and Isola 2020): lower is closer.

    None where no pair has a direction.

    Args:
        embedding: [n, D].
        one: a row of each pair, [m].
        other: the other row, [m].
        every: whether these are all pairs, or drawn.
    """
    found = []
    for first in range(0, len(one), AT_ONCE):
        a = embedding[one[first : first + AT_ONCE]].astype(np.float64)
        b = embedding[other[first : first + AT_ONCE]].astype(np.float64)
        size = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
        alive = size > 0
        found.append(2 - 2 * (a * b).sum(1)[alive] / size[alive])
    squares = np.concatenate(found) if found else np.empty(0)
    return Sampled(float(squares.mean()), _error(squares, every)) if len(squares) else None


def hubness(embedding: Matrix, k: int = NEIGHBOURS) -> float:
    """Return the skewness of how often each row is among another's k nearest by cosine (Radovanovic et al. 2010).

    0 where everybody is a neighbour equally often; far above 0 where few hubs are near everybody.
    """
    directions = unit(embedding.astype(np.float64))
    n = len(directions)
    k = min(k, n - 1)
    counts = np.zeros(n)
    for first in range(0, n, 1024):
        scores = directions[first : first + 1024] @ directions.T
        scores[np.arange(len(scores)), first + np.arange(len(scores))] = -np.inf
        nearest = np.argpartition(scores, -k, axis=1)[:, -k:]
        counts += np.bincount(nearest.ravel(), minlength=n)
    deviation = counts.std()
    return float((((counts - counts.mean()) / deviation) ** 3).mean()) if deviation > 0 else 0.0
