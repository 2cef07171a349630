"""The spectrum of the covariance of an embedding, and how much of it exceeds noise."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Matrix = NDArray[np.float32]
Float64s = NDArray[np.float64]

BLOCK = 1 << 25  # bytes of float64 in memory at a time
CONSTANT = 1e-6  # relative to the largest deviation: a column with a smaller one is constant
COPIES = 20  # the number of random copies in the parallel analysis


@dataclass(frozen=True)
class Moments:
    """The moments of an embedding [n, D], from two passes.

    Attributes:
        count: n.
        mean: of the rows, [D].
        covariance: with the denominator n, [D, D].
    """

    count: int
    mean: Float64s
    covariance: Float64s

    @property
    def eigenvalues(self) -> Float64s:
        """The eigenvalues of the covariance, largest first, [D]; negative rounding errors become 0."""
        values: Float64s = np.linalg.eigvalsh(self.covariance)[::-1].clip(min=0.0)
        return values

    @property
    def moving(self) -> NDArray[np.bool_]:
        """Which columns are not constant, [D]."""
        deviation = np.sqrt(np.diag(self.covariance))
        still: NDArray[np.bool_] = deviation <= CONSTANT * deviation.max(initial=0.0)
        return ~still

    @property
    def correlations(self) -> Float64s:
        """The covariance of the standardised embedding, over its K columns that are not constant, [K, K]."""
        kept = self.covariance[np.ix_(self.moving, self.moving)]
        deviation = np.sqrt(np.diag(kept))
        values: Float64s = kept / np.outer(deviation, deviation)
        return values


class Rows:
    """Some rows of an embedding, read on demand and not copied.

    Args:
        embedding: [n, D], in memory or memory-mapped.
        chosen: row indices, ascending; all rows by default.
    """

    def __init__(self, embedding: Matrix, chosen: NDArray[np.int64] | None = None) -> None:
        self.embedding, self.chosen = embedding, chosen
        self.shape = (len(embedding) if chosen is None else len(chosen), embedding.shape[1])

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, which: slice | NDArray[np.int64]) -> Matrix:
        """Return some of the rows, read into memory."""
        found: Matrix = self.embedding[which if self.chosen is None else self.chosen[which]]
        return found


def blocks(embedding: Matrix | Rows) -> Iterator[Float64s]:
    """Yield the rows of an embedding in float64, a block at a time: the whole embedding is never copied."""
    rows = max(1, BLOCK // (8 * embedding.shape[1]))
    for first in range(0, len(embedding), rows):
        yield embedding[first : first + rows].astype(np.float64)


def lengths(embedding: Matrix | Rows) -> Float64s:
    """Return the Euclidean length of each row, [n]."""
    return np.concatenate([np.linalg.norm(block, axis=1) for block in blocks(embedding)])


def unit(rows: Float64s) -> Float64s:
    """Return the rows divided by their lengths."""
    values: Float64s = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    return values


def moments(embedding: Matrix | Rows) -> Moments:
    """Return the mean and the covariance of the rows."""
    count, size = embedding.shape
    mean = np.zeros(size)
    for block in blocks(embedding):
        mean += block.sum(0)
    mean /= count
    products = np.zeros((size, size))
    for block in blocks(embedding):
        centred = block - mean
        products += centred.T @ centred
    return Moments(count, mean, products / count)


def entropy(values: Float64s) -> float:
    """Return the entropy in nats of ``values`` divided by their sum; 0 if all are 0."""
    total = values.sum()
    shares = values[values > 0] / total if total > 0 else np.ones(1)
    return float(-(shares * np.log(shares)).sum())


def effective_rank(singular_values: Float64s) -> float:
    """Return exp of the entropy of the singular values' shares (Roy and Vetterli 2007): from 1 to D."""
    return float(np.exp(entropy(singular_values)))


def participation_ratio(eigenvalues: Float64s) -> float:
    """Return ``(sum lambda)^2 / sum lambda^2``, from 1 to D: how many directions carry the variance; 0 without any."""
    squares = (eigenvalues**2).sum()
    return float(eigenvalues.sum() ** 2 / squares) if squares > 0 else 0.0


def isotropy(eigenvalues: Float64s) -> float:
    """Return the smallest eigenvalue of the covariance over the largest: 1 is a sphere; 0 without variance."""
    return float(eigenvalues[-1] / eigenvalues[0]) if eigenvalues[0] > 0 else 0.0


@dataclass(frozen=True)
class ParallelAnalysis:
    """How much of the distribution of the items about their mean exceeds chance.

    Attributes:
        dimensions: the number of leading eigenvalues of the directions' covariance above the 95 % quantile of those of
            random directions.
        noise_share: the share of their sum that random directions have too; 1 if no eigenvalue is above the quantile.
    """

    dimensions: int
    noise_share: float


def parallel_analysis(embedding: Matrix, seed: int, num_copies: int = COPIES) -> ParallelAnalysis:
    """Compare the spectrum with that of equally many random directions (Horn 1965).

    The spectrum is that of the directions of the centred rows: row lengths and the choice of axes do not matter.
    """
    directions, rng = centred_directions(embedding), np.random.default_rng(seed)
    if len(directions) < 2:
        return ParallelAnalysis(0, 1.0)
    found = _eigenvalues(directions)
    copies = np.stack(
        [_eigenvalues(centred_directions(rng.standard_normal(directions.shape))) for _ in range(num_copies)]
    )  # [copies, D]
    above = np.cumprod(found > np.quantile(copies, 0.95, axis=0)).astype(bool)  # up to the first that is not
    beyond = (found - copies.mean(0))[above].sum()
    return ParallelAnalysis(int(above.sum()), float(1 - beyond / found.sum()))


def centred_directions(embedding: Matrix | Float64s) -> Float64s:
    """Return the rows minus their mean, divided by their lengths; rows equal to the mean are left out."""
    centred = embedding - embedding.mean(0, dtype=np.float64)
    norms = np.linalg.norm(centred, axis=1, keepdims=True)
    far = norms[:, 0] > CONSTANT * norms.max(initial=0.0)
    directions: Float64s = centred[far] / norms[far]
    return directions


def _eigenvalues(directions: Float64s) -> Float64s:
    values: Float64s = np.linalg.eigvalsh(directions.T @ directions)[::-1].clip(min=0.0)
    return values


def shuffled(embedding: Matrix, rng: np.random.Generator) -> Matrix:
    """Return a copy in which each column is permuted independently."""
    return rng.permuted(embedding, axis=0)
