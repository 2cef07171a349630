"""Diagnosis of an embedding space: the space, its measures, its references, and the verdict."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from adrec.diagnose.measures import DEFINITIONS, Measures, measure
from adrec.diagnose.structure import check_scikit_learn
from adrec.diagnose.verdict import GAUSSIAN, SHUFFLED, STAGE_1, CollapseVerdict, verdict
from adrec.nn.spectrum import Matrix, lengths, shuffled

REFERENCE_ROWS = 100_000  # at most: drawn from more, which changes measures of all rows little


@dataclass(frozen=True, eq=False)
class Space:
    """An embedding space.

    Attributes:
        name: in tables and pictures.
        embedding: a row an item, float32 [n, D].
        ids: of the items, a polars series [n]; None where only their rows are known.
        popularity: training interactions of each item, [n].
        followers: rows of items that follow each other in training, [m] each.
        stage_1: the embedding that stage 1 ended with, [n, D].
        accuracy: metrics to show beside the measures, by name.
    """

    name: str
    embedding: Matrix
    ids: pl.Series | None = None
    popularity: NDArray[np.int64] | None = None
    followers: tuple[NDArray[np.int64], NDArray[np.int64]] | None = None
    stage_1: Matrix | None = None
    accuracy: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Diagnosed:
    """The diagnosis of a space.

    Attributes:
        space: the space.
        measures: the measures of the space.
        references: the measures of ``gaussian``, ``shuffled`` and, if available, ``stage 1``.
        verdict: the verdict on the measures.
    """

    space: Space
    measures: Measures
    references: Mapping[str, Measures]
    verdict: CollapseVerdict

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return {
            "name": self.space.name,
            "verdict": self.verdict.to_dict(),
            "measures": self.measures.to_dict(),
            "references": {name: each.to_dict() for name, each in self.references.items()},
            "accuracy": dict(self.space.accuracy),
            "definitions": {name: vars(each) for name, each in DEFINITIONS.items()},
        }


def diagnose(space: Space, *, seed: int = 0) -> Diagnosed:
    """Measure a space beside its references.

    Raises :class:`DataError` for an embedding that cannot be measured, and
    :class:`UserError` where scikit-learn is missing.
    """
    check_scikit_learn()
    own = measure(space.embedding, popularity=space.popularity, followers=space.followers, seed=seed)
    references = {
        name: measure(each.embedding, popularity=each.popularity, followers=each.followers, seed=seed)
        for name, each in reference_spaces(space, own["variance"] or 0.0, seed).items()
    }
    return Diagnosed(space, own, references, verdict(own, references))


def reference_spaces(space: Space, variance: float, seed: int) -> dict[str, Space]:
    """Return the references of a space, of its shape (of more than 100,000 rows, so many are drawn).

    ``gaussian`` has independent normal entries with the space's ``variance`` (1 where that is 0); ``shuffled`` the
    space's own columns, each in another order of rows; ``stage 1`` is what stage 1 ended with.
    """
    rng = np.random.default_rng(seed)
    some = _drawn(space, rng)
    precision = np.result_type(some.embedding.dtype, np.float32).type
    deviation = precision(np.sqrt(variance or 1.0))
    noise = deviation * rng.standard_normal(some.embedding.shape).astype(precision)
    found = {
        GAUSSIAN: replace(some, embedding=noise),
        SHUFFLED: replace(some, embedding=shuffled(np.asarray(some.embedding), rng)),
    }
    if space.stage_1 is not None:
        found[STAGE_1] = replace(space, embedding=space.stage_1)
    return found


def _drawn(space: Space, rng: np.random.Generator) -> Space:
    """Return a space of some of the items, those with a length."""
    alive = np.flatnonzero(lengths(space.embedding) > 0)
    if len(alive) == len(space.embedding) <= REFERENCE_ROWS:
        return space
    chosen = np.sort(rng.permutation(alive)[:REFERENCE_ROWS])
    followers = None
    if space.followers is not None:
        row_of = np.full(len(space.embedding), -1)
        row_of[chosen] = np.arange(len(chosen))
        one, other = (row_of[side] for side in space.followers)
        both = (one >= 0) & (other >= 0)
        followers = (one[both], other[both])
    popularity = None if space.popularity is None else space.popularity[chosen]
    return replace(space, embedding=space.embedding[chosen], popularity=popularity, followers=followers)
