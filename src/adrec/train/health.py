"""The health of the item embedding: inexpensive measures at every validation, and a warning if it collapses."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from torch import Tensor

from adrec.nn.spectrum import Float64s, Matrix, centred_directions, effective_rank, lengths, moments, unit
from adrec.train.bounds import COMMON, RANK, STRUCTURE

MOST_ROWS = 20_000  # maximum number of rows measured, evenly spaced in the catalogue


def spacing(count: int) -> int:
    """Return the step in which ``count`` rows are measured, so that they are at most :data:`MOST_ROWS`."""
    return max(1, -(-count // MOST_ROWS))


def embedding_health(embedding: Matrix) -> dict[str, float]:
    """Return ``effective_rank``, ``variance``, ``mean_cosine``, ``norm`` and ``noise_share`` of an embedding [n, D].

    Rows of zeros are left out. ``noise_share`` is that of :mod:`adrec.nn.spectrum`, except that the largest eigenvalue
    of random directions is not sampled but computed (Marchenko and Pastur 1967): ``(1 + sqrt(D / n))^2`` times the
    mean one. Returns an empty dict if fewer than two rows are left.
    """
    rows = embedding[:: spacing(len(embedding))]
    norms = lengths(rows)
    if not np.isfinite(norms).all() or (norms > 0).sum() < 2:
        return {}
    rows, norms = rows[norms > 0], norms[norms > 0]
    n, own = len(rows), moments(rows)
    total = unit(rows.astype(np.float64)).sum(0)
    return {
        "effective_rank": effective_rank(np.sqrt(own.eigenvalues)),
        "variance": float(own.eigenvalues.mean()),
        "mean_cosine": float((total @ total - n) / (n * (n - 1))),
        "norm": float(norms.mean()),
        "noise_share": _noise_share(centred_directions(rows)),
    }


def _noise_share(directions: Float64s) -> float:
    if len(directions) < 2:
        return 1.0
    n, size = directions.shape
    found = np.linalg.eigvalsh(directions.T @ directions) * size / n  # [D], 1 on average
    edge = (1 + np.sqrt(size / n)) ** 2
    return float(1 - (found[found > edge] - 1).sum() / size)


def collapse(health: Mapping[str, float], size: int, num_items: int) -> str | None:
    """Return how an embedding has collapsed, by the bounds of the verdict; None if it has not.

    Args:
        health: the measures of the embedding.
        size: D.
        num_items: n.
    """
    if not health:
        return "every item's embedding is 0"
    if health["mean_cosine"] > COMMON:
        return f"items point the same way (mean cosine {health['mean_cosine']:.2f})"
    if health["effective_rank"] < RANK * min(size, num_items - 1):
        return f"items use {health['effective_rank']:.0f} of {size} dimensions"
    if 1 - health["noise_share"] < STRUCTURE:
        return f"the spectrum is {health['noise_share']:.0%} that of random noise"
    return None


def health_of(embedding: Tensor, num_items: int) -> dict[str, float]:
    """Return :func:`embedding_health` of the rows of items 1 to ``num_items`` of an item embedding [rows, D]."""
    return embedding_health(embedding.detach()[1 : num_items + 1].float().cpu().numpy())
