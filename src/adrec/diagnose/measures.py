"""The measures of an embedding space: definition, source, and value with sampling error.

Sums over all rows are exact at any size. Measures over all pairs, and estimators that are slow on many rows, use
samples: random pairs, or two or three samples of rows, whose spread gives the error. ``published`` is the value of the
authors' notebook, if its definition differs.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from adrec.diagnose import structure
from adrec.diagnose.pairs import QUANTILES, alignment, distinct, hubness, pairs
from adrec.diagnose.samples import Samples, Value
from adrec.nn.spectrum import (
    Float64s,
    Matrix,
    Moments,
    Rows,
    effective_rank,
    entropy,
    isotropy,
    lengths,
    moments,
    parallel_analysis,
    participation_ratio,
)
from adrec.utils.errors import DataError
from adrec.utils.text import counted

MOST_FOLLOWERS = 1_000_000  # pairs of items that follow each other; of more, so many are drawn
WIDEST = 16_384  # dimensions


@dataclass(frozen=True)
class Definition:
    """The definition of a measure.

    Attributes:
        title: in a table.
        meaning: in a sentence.
        source: who defined it.
    """

    title: str
    meaning: str
    source: str


DEFINITIONS: Mapping[str, Definition] = {
    "variance": Definition("variance", "mean over columns of the variance of a column.", "tr(C) / D"),
    "norm": Definition("norm", "mean length of a row.", "mean of ‖e‖"),
    "mean_cosine": Definition(
        "mean cosine",
        "of pairs of distinct items: the share of the squared length that is common to all.",
        "(‖Σu‖² - n) / n(n - 1)",
    ),
    "cosine_deviation": Definition("deviation of cosines", "over pairs of distinct items.", "from ‖UᵀU‖²"),
    "mean_distance": Definition("mean distance", "Euclidean, of pairs of distinct items.", "mean of ‖a - b‖"),
    "effective_rank": Definition(
        "effective rank", "exp of the entropy of the singular values: 1 to D.", "Roy and Vetterli 2007"
    ),
    "spectral_entropy": Definition("spectral entropy", "of the singular values, in nats.", "Roy and Vetterli 2007"),
    "spectral_variance": Definition(
        "variance of singular values", "of the singular values over their mean: 0 for a sphere.", "var(s) / mean(s)^2"
    ),
    "participation_ratio": Definition(
        "participation ratio", "directions that carry the variance: 1 to D.", "(sum l)^2 / sum l^2"
    ),
    "covariance_entropy": Definition(
        "covariance entropy",
        "of the eigenvalues of the covariance over their sum, in nats.",
        "-sum p log p, p = l / sum l",
    ),
    "isotropy": Definition("isotropy", "smallest over largest eigenvalue: 1 is a sphere.", "l_min / l_max"),
    "signal_dimensions": Definition(
        "signal dimensions",
        "eigenvalues of the centred directions beyond those of random ones.",
        "Horn 1965",
    ),
    "noise_share": Definition(
        "noise share",
        "of the centred directions' spectrum: what random ones have too; 1 is noise.",
        "Horn 1965",
    ),
    "distinct": Definition("distinct", "share of items whose row is not that of another, or 0.", "count"),
    "marginal_divergence": Definition(
        "KL of columns", "from a Gaussian, of a standardised column, in nats.", "Vasicek 1976"
    ),
    "dependence": Definition(
        "KL by correlation", "what correlations add to it for each column, in nats.", "Cover and Thomas 2006"
    ),
    "mutual_information": Definition(
        "mutual information", "of the first two principal coordinates, in nats: 0 for a Gaussian.", "Kraskov 2004"
    ),
    "silhouette": Definition("silhouette", "of ten clusters of directions by k-means: -1 to 1.", "Rousseeuw 1987"),
    "uniformity": Definition(
        "uniformity", "log mean exp(-2 d^2) of directions: lower is more even.", "Wang and Isola 2020"
    ),
    "alignment": Definition(
        "alignment", "mean d^2 of the directions of items that follow each other: lower is closer.", "Wang, Isola 2020"
    ),
    "hubness": Definition(
        "hubness", "skewness of how often an item is among another's ten nearest.", "Radovanovic et al. 2010"
    ),
    "norm_popularity": Definition(
        "norm and popularity", "rank correlation of a row's length and its interactions.", "Spearman 1904"
    ),
}


@dataclass(frozen=True)
class Measures:
    """All measures of an embedding.

    Attributes:
        items: n.
        size: D.
        values: by the name in :data:`DEFINITIONS`.
        cosine_quantiles: of the cosines of pairs, by quantile.
        singular_values: of the centred embedding over the root of n, largest first.
        notes: what was left out or sampled, a sentence each.
    """

    items: int
    size: int
    values: Mapping[str, Value]
    cosine_quantiles: Mapping[str, float]
    singular_values: tuple[float, ...]
    notes: tuple[str, ...]

    def __getitem__(self, name: str) -> float | None:
        """Return a measure's value."""
        return self.values[name].value

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return asdict(self)


def measure(
    embedding: Matrix,
    *,
    popularity: NDArray[np.int64] | None = None,
    followers: tuple[NDArray[np.int64], NDArray[np.int64]] | None = None,
    seed: int = 0,
) -> Measures:
    """Measure an embedding.

    Args:
        embedding: a row an item, float32 [n, D]; n of at least 2.
        popularity: interactions of each item, [n].
        followers: rows of items that follow each other in a sequence, [m] each: the positive pairs of alignment.
        seed: of what is drawn.

    Raises:
        DataError: where there are fewer than two rows with a length, or a number is not finite.
    """
    check(embedding, "the embedding")
    alive = np.flatnonzero(lengths(embedding) > 0)
    rows = Rows(embedding, None if len(alive) == len(embedding) else alive)
    own = moments(rows)
    singular = np.sqrt(own.eigenvalues)  # [D]
    found = pairs(rows, seed)
    n, norms = len(rows), lengths(rows)
    sample = Samples(rows, seed)
    values = {
        "variance": Value(float(own.eigenvalues.mean())),
        "norm": Value(float(norms.mean())),
        "mean_cosine": Value(found.cosine, published=(found.cosine * (n - 1) + 1) / n),
        "cosine_deviation": Value(found.cosine_deviation),
        "mean_distance": Value(found.distance.value, found.distance.error, found.distance.value * (n - 1) / n),
        "effective_rank": Value(effective_rank(singular)),
        "spectral_entropy": Value(entropy(singular)),
        "spectral_variance": Value(float(singular.var() / singular.mean() ** 2) if singular.any() else None),
        "participation_ratio": Value(participation_ratio(own.eigenvalues)),
        "covariance_entropy": Value(entropy(own.eigenvalues)),
        "isotropy": Value(isotropy(own.eigenvalues)),
        "signal_dimensions": sample.mean(lambda rows: float(parallel_analysis(rows, seed).dimensions), 20_000),
        "noise_share": sample.mean(lambda rows: parallel_analysis(rows, seed).noise_share, 20_000),
        "distinct": Value(distinct(rows, seed) * n / len(embedding)),
        "marginal_divergence": sample.mean(lambda rows: structure.marginal_divergence(rows, own), 30_000),
        "dependence": Value(structure.dependence(own)),
        "mutual_information": _mutual_information(sample, own, seed),
        "silhouette": sample.mean(lambda rows: structure.silhouette(rows, seed), 5_000),
        "uniformity": Value(found.uniformity.value, found.uniformity.error),
        "alignment": _alignment(embedding, followers),
        "hubness": sample.mean(hubness, 10_000),
        "norm_popularity": Value(None if popularity is None else _correlated(norms, popularity[alive])),
    }
    return Measures(
        items=len(embedding),
        size=embedding.shape[1],
        values=values,
        cosine_quantiles={f"{share:.0%}": each for share, each in zip(QUANTILES, found.cosine_quantiles, strict=True)},
        singular_values=tuple(float(each) for each in singular),
        notes=_notes(own, len(embedding) - n, sample),
    )


def check(embedding: Matrix, name: str) -> None:
    """Raise :class:`DataError` where an embedding cannot be measured; the sentence names it and says where and why."""
    if embedding.ndim != 2 or embedding.shape[1] == 0:
        raise DataError(f"{name} has the shape {embedding.shape}; an embedding is a matrix, a row an item.")
    if embedding.shape[1] > WIDEST:
        raise DataError(
            f"{name} has {len(embedding):,} rows in {embedding.shape[1]:,} dimensions; {WIDEST:,} are the most: is it "
            "transposed?"
        )
    if len(embedding) < 2:
        items = counted(len(embedding), "item")
        raise DataError(f"{name} has {items}, so there is nothing to compare; an embedding needs two at least.")
    for first in range(0, len(embedding), 1 << 16):
        bad = ~np.isfinite(embedding[first : first + (1 << 16)])
        if bad.any():
            row, column = np.argwhere(bad)[0]
            value = embedding[first + row, column]
            raise DataError(f"{name} has {value} in row {first + row}, column {column} (from 0); it must be finite.")
    if (lengths(embedding) > 0).sum() < 2:
        raise DataError(f"all rows of {name} but one at most are 0: there is nothing to measure.")


def _alignment(embedding: Matrix, followers: tuple[NDArray[np.int64], NDArray[np.int64]] | None) -> Value:
    if followers is None:
        return Value(None)
    found = alignment(embedding, *followers, every=len(followers[0]) < MOST_FOLLOWERS)
    return Value(None) if found is None else Value(found.value, found.error)


def _mutual_information(sample: Samples, own: Moments, seed: int) -> Value:
    if sample.rows.shape[1] < 2 or own.moving.sum() < 2:
        return Value(None)

    def of(rows: Matrix) -> Float64s:
        return structure.principal_coordinates(rows, own)

    found = sample.mean(lambda rows: structure.mutual_information(of(rows), seed), 5_000)
    published = sample.mean(lambda rows: structure.histogram_entropy(of(rows)), 100_000)
    return Value(found.value, found.error, published.value)


def _correlated(norms: Float64s, popularity: NDArray[np.int64]) -> float | None:
    return structure.rank_correlation(norms, popularity.astype(np.float64))


def _notes(own: Moments, zeros: int, sample: Samples) -> tuple[str, ...]:
    notes = []
    still = int((~own.moving).sum())
    if still:
        notes.append(f"{still} of {len(own.mean)} columns are constant: they are left out of what is standardised.")
    if zeros:
        notes.append(f"{counted(zeros, 'row')} of zeros: left out of every measure but what is distinct.")
    if own.count <= len(own.mean):
        notes.append(
            f"{own.count:,} items in {len(own.mean)} dimensions: the covariance has not full rank, so isotropy is 0 "
            "and KL by correlation is not defined."
        )
    if sample.largest:
        notes.append(
            f"Some measures look at samples of {sample.largest:,} rows at most, or at pairs: ± is the standard error "
            "of drawing them. Hubness, noise share and divergences of fewer rows are others: compare like with like."
        )
    return tuple(notes)
