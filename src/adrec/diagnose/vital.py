"""The cheap measures, taken at every evaluation of a training run, and the warning when a space begins to die."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from adrec.diagnose.pairs import lengths, unit
from adrec.diagnose.spectrum import Matrix, effective_rank, moments
from adrec.diagnose.verdict import COMMON, RANK, STRUCTURE

MOST_ROWS = 20_000  # looked at, evenly spread over the catalogue


def vital_signs(embedding: Matrix) -> dict[str, float]:
    """Return ``effective_rank``, ``variance``, ``mean_cosine``, ``norm`` and ``noise_share`` of an embedding [n, D].

    ``noise_share`` is that of :mod:`adrec.diagnose.spectrum` with the largest eigenvalue of random noise in place of
    shuffled copies (Marchenko and Pastur 1967): ``(1 + sqrt(D / n))^2``. Empty where fewer than two rows have a length.
    """
    rows = embedding[:: -(-len(embedding) // MOST_ROWS)]
    norms = lengths(rows)
    alive = norms > 0
    n = int(alive.sum())
    if n < 2 or not np.isfinite(norms).all():
        return {}
    own = moments(rows)
    correlations = np.linalg.eigvalsh(own.correlations)
    edge = (1 + np.sqrt(len(correlations) / len(rows))) ** 2
    beyond = (correlations[correlations > edge] - 1).sum() / max(len(correlations), 1)
    total = unit(rows[alive].astype(np.float64)).sum(0)
    return {
        "effective_rank": effective_rank(np.sqrt(own.eigenvalues)),
        "variance": float(own.eigenvalues.mean()),
        "mean_cosine": float((total @ total - n) / (n * (n - 1))),
        "norm": float(norms.mean()),
        "noise_share": float(1 - beyond),
    }


def collapse(signs: Mapping[str, float], size: int) -> str | None:
    """Return how a space of ``size`` dimensions has collapsed, by the bounds of the verdict; None where it is alive."""
    if not signs:
        return "every item's embedding is 0"
    if signs["mean_cosine"] > COMMON:
        return f"items point the same way (mean cosine {signs['mean_cosine']:.2f})"
    if signs["effective_rank"] < RANK * size:
        return f"items use {signs['effective_rank']:.0f} of {size} dimensions"
    if 1 - signs["noise_share"] < STRUCTURE:
        return f"the spectrum is {signs['noise_share']:.0%} that of random noise"
    return None
