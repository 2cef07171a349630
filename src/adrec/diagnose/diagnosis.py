"""Embedding spaces side by side: what each is, its measures, its yardsticks, and the verdict."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from adrec.diagnose.measures import DEFINITIONS, Measures, measure
from adrec.diagnose.spectrum import Matrix, moments, shuffled
from adrec.diagnose.structure import check_scikit_learn
from adrec.diagnose.verdict import GAUSSIAN, SHUFFLED, STAGE_1, Verdict, verdict

YARDSTICK_ROWS = 100_000  # at most: of more rows no measure is another


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
    """A space with what was found.

    Attributes:
        space: it.
        measures: its own.
        yardsticks: the measures of ``gaussian``, ``shuffled`` and, where there is one, ``stage 1``.
        verdict: what they say.
    """

    space: Space
    measures: Measures
    yardsticks: Mapping[str, Measures]
    verdict: Verdict

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return {
            "name": self.space.name,
            "verdict": self.verdict.to_dict(),
            "measures": self.measures.to_dict(),
            "yardsticks": {name: each.to_dict() for name, each in self.yardsticks.items()},
            "accuracy": dict(self.space.accuracy),
            "definitions": {name: vars(each) for name, each in DEFINITIONS.items()},
        }


def diagnose(space: Space, *, seed: int = 0) -> Diagnosed:
    """Measure a space beside its yardsticks.

    Raises :class:`adrec.errors.DataError` for an embedding that cannot be measured, and
    :class:`adrec.errors.UserError` where scikit-learn is missing.
    """
    check_scikit_learn()
    own = measure(space.embedding, popularity=space.popularity, followers=space.followers, seed=seed)

    def beside(each: Matrix) -> Measures:
        popularity, followers = _first(space.popularity, each), _inside(space.followers, each)
        return measure(each, popularity=popularity, followers=followers, seed=seed)

    yardsticks = {name: beside(each) for name, each in yardstick_embeddings(space, seed).items()}
    return Diagnosed(space, own, yardsticks, verdict(own, yardsticks))


def yardstick_embeddings(space: Space, seed: int) -> dict[str, Matrix]:
    """Return the yardsticks of a space, of its shape (100,000 rows at most).

    ``gaussian`` has independent normal entries with the space's mean variance; ``shuffled`` the space's own columns,
    each in another order of rows; ``stage 1`` is what stage 1 ended with.
    """
    rng, own = np.random.default_rng(seed), space.embedding[:YARDSTICK_ROWS]
    deviation = np.float32(np.sqrt(moments(own).eigenvalues.mean()))
    found = {
        GAUSSIAN: deviation * rng.standard_normal(own.shape, dtype=np.float32),
        SHUFFLED: shuffled(own, rng),
    }
    if space.stage_1 is not None:
        found[STAGE_1] = space.stage_1
    return found


def _first(popularity: NDArray[np.int64] | None, embedding: Matrix) -> NDArray[np.int64] | None:
    return None if popularity is None else popularity[: len(embedding)]


def _inside(
    followers: tuple[NDArray[np.int64], NDArray[np.int64]] | None, embedding: Matrix
) -> tuple[NDArray[np.int64], NDArray[np.int64]] | None:
    if followers is None:
        return None
    inside = np.maximum(*followers) < len(embedding)
    return followers[0][inside], followers[1][inside]


def diagnose_all(spaces: Sequence[Space], *, seed: int = 0) -> list[Diagnosed]:
    """Measure several spaces, each beside its yardsticks."""
    return [diagnose(space, seed=seed) for space in spaces]
