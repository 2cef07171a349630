"""Measures that need an estimator (scikit-learn, SciPy): clusters, dependence, distance from a Gaussian."""

from __future__ import annotations

import warnings
from importlib.util import find_spec

import numpy as np
from scipy.stats import differential_entropy, spearmanr

from adrec.nn.spectrum import Float64s, Matrix, Moments, unit
from adrec.utils.errors import UserError, needs_extra

CLUSTERS = 10
FEWEST = 10  # rows of which a density is estimated
BINS = 10  # of the published notebook's histogram


def check_scikit_learn() -> None:
    """Raise :class:`UserError` where scikit-learn is not installed."""
    if find_spec("sklearn") is None:
        raise UserError(needs_extra("diagnosing", "diagnose"))


def silhouette(embedding: Matrix, seed: int, clusters: int = CLUSTERS) -> float | None:
    """Return the mean silhouette (Rousseeuw 1987) of k-means on the rows' directions, -1 to 1.

    None where there are not more rows than clusters, or all fall into one.
    """
    from sklearn.cluster import KMeans  # noqa: PLC0415
    from sklearn.metrics import silhouette_score  # noqa: PLC0415

    directions = unit(embedding.astype(np.float64))
    if len(directions) <= clusters:
        return None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # fewer distinct points than clusters
        labels = KMeans(clusters, n_init=3, random_state=seed).fit_predict(directions)
    return float(silhouette_score(directions, labels)) if 1 < len(np.unique(labels)) < len(labels) else None


def principal_coordinates(embedding: Matrix, moments: Moments, count: int = 2) -> Float64s:
    """Return the coordinates of the rows along the first principal components, [n, count], largest variance first."""
    _, vectors = np.linalg.eigh(moments.covariance)
    coordinates: Float64s = (embedding - moments.mean) @ vectors[:, ::-1][:, :count]
    return coordinates


def mutual_information(coordinates: Float64s, seed: int) -> float | None:
    """Return the mutual information of the first two principal coordinates in nats (Kraskov et al. 2004).

    They are uncorrelated, so for a Gaussian it is 0; clusters and curves make it larger. None of fewer than ten rows.
    """
    if len(coordinates) < FEWEST:
        return None
    from sklearn.feature_selection import mutual_info_regression  # noqa: PLC0415

    return float(mutual_info_regression(coordinates[:, :1], coordinates[:, 1], random_state=seed)[0])


def histogram_entropy(coordinates: Float64s) -> float:
    """Return what the published notebook calls mutual information: the entropy of a histogram of ten bins, in nats."""
    counts, _ = np.histogram(coordinates[:, 0], bins=BINS)
    shares = counts[counts > 0] / counts.sum()
    return float(-(shares * np.log(shares)).sum())


def marginal_divergence(embedding: Matrix, moments: Moments) -> float | None:
    """Return the mean over columns of KL(z || N(0, 1)) of the standardised column z, in nats.

    ``log(2 pi e) / 2`` less the differential entropy, which is estimated from spacings (Vasicek 1976): of few rows the
    estimate is too high, by as much as the Gaussian reference's is above 0. Columns of few distinct values have no
    density and are left out; None where no column is left, or of fewer than ten rows.
    """
    if not moments.moving.any() or len(embedding) < FEWEST:
        return None
    kept = embedding[:, moments.moving].astype(np.float64)
    standard = (kept - moments.mean[moments.moving]) / np.sqrt(np.diag(moments.covariance)[moments.moving])
    with np.errstate(divide="ignore"):  # equal values have no spacing
        entropies = differential_entropy(standard, axis=0, method="vasicek")
    dense = entropies[np.isfinite(entropies)]
    return float((np.log(2 * np.pi * np.e) / 2 - dense).mean()) if len(dense) else None


def dependence(moments: Moments) -> float | None:
    """Return ``-log det R / (2 K)`` in nats: what correlations add to the divergence from independent columns.

    The multi-information of a Gaussian with the correlations R, for each of its K columns (Cover and Thomas 2006). None
    where there are no more rows than columns, or R is singular.
    """
    correlations = moments.correlations
    if moments.count <= len(correlations) or len(correlations) == 0:
        return None
    sign, logarithm = np.linalg.slogdet(correlations)
    return float(-logarithm / (2 * len(correlations))) if sign > 0 else None


def rank_correlation(one: Float64s, other: Float64s) -> float | None:
    """Return Spearman's rank correlation; None where one of them is constant."""
    if np.ptp(one) == 0 or np.ptp(other) == 0:
        return None
    return float(spearmanr(one, other).statistic)
