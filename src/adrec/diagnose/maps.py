"""Maps of an embedding space: its items in two dimensions, by PCA and by t-SNE (van der Maaten and Hinton 2008)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec

import numpy as np
import polars as pl
from numpy.typing import NDArray

from adrec.diagnose.diagnosis import Space, reference_spaces
from adrec.diagnose.structure import check_scikit_learn, principal_coordinates
from adrec.diagnose.verdict import GAUSSIAN
from adrec.nn.spectrum import Float64s, Matrix, moments
from adrec.utils.errors import UserError, needs_extra

Rows = NDArray[np.int64]

ROWS = 5_000  # on a map at most: t-SNE takes some 25 seconds of a core for them
PERPLEXITY = 30.0
PCA, TSNE = "PCA", "t-SNE"


@dataclass(frozen=True, eq=False)
class Map:
    """Where the items of a space lie in two dimensions.

    Attributes:
        name: of the space, or ``gaussian``.
        rows: which are on the map, [m].
        coordinates: of these rows, [m, 2], by ``PCA`` and ``t-SNE``.
        shares: of the variance, along the two axes of PCA.
        space: whose rows they are, in the order of the spaces; None for the reference.
    """

    name: str
    rows: Rows
    coordinates: Mapping[str, Float64s]
    shares: tuple[float, float]
    space: int | None


def check_drawing() -> None:
    """Raise :class:`UserError`, before any work, if a package for drawing or t-SNE is missing."""
    check_scikit_learn()
    if find_spec("matplotlib") is None:
        raise UserError(needs_extra("drawing a space", "diagnose"))


def draw_maps(spaces: Sequence[Space], *, seed: int = 0, most: int = ROWS) -> list[Map]:
    """Map spaces, and the Gaussian reference of the first behind them.

    Args:
        spaces: one at least.
        seed: of the rows that are drawn, the reference and t-SNE.
        most: rows on a map.

    Raises:
        UserError: where scikit-learn or matplotlib is missing.
    """
    check_drawing()
    drawn = sample(spaces, seed, most)
    maps = [
        _map(space.name, space.embedding, rows, index, seed)
        for index, (space, rows) in enumerate(zip(spaces, drawn, strict=True))
    ]
    variance = float(moments(spaces[0].embedding).eigenvalues.mean())
    random = reference_spaces(spaces[0], variance, seed)[GAUSSIAN].embedding
    return [*maps, _map(GAUSSIAN, random, draw(len(random), seed, most), None, seed)]


def _map(name: str, embedding: Matrix, rows: Rows, space: int | None, seed: int) -> Map:
    flat, shares = pca(embedding, rows)
    return Map(name, rows, {PCA: flat, TSNE: tsne(embedding[rows], seed)}, shares, space)


def draw(count: int, seed: int, most: int = ROWS) -> Rows:
    """Return ``most`` of the rows 0 to ``count`` - 1, in order, or all of them where there are no more."""
    return np.sort(np.random.default_rng(seed).permutation(count)[:most])


def sample(spaces: Sequence[Space], seed: int, most: int = ROWS) -> list[Rows]:
    """Return which rows of each space are on its map.

    Spaces of the same items get the same ones in the same order, whatever the order of their rows; where ids are not
    known, rows of the same number count as the same item.
    """
    drawn: list[Rows] = []
    for index, space in enumerate(spaces):
        again = (_same(spaces[k], drawn[k], space) for k in range(index))
        found = next((rows for rows in again if rows is not None), None)
        drawn.append(draw(len(space.embedding), seed, most) if found is None else found)
    return drawn


def _same(first: Space, rows: Rows, other: Space) -> Rows | None:
    """Return where ``rows`` of a space are in another of as many items; None where one of them is not there."""
    if first.ids is None or other.ids is None or len(first.ids) != len(other.ids):
        return None
    wanted = pl.DataFrame({"id": first.ids.cast(pl.String)[rows]})
    known = pl.DataFrame({"id": other.ids.cast(pl.String)}).with_row_index("row")
    found = wanted.join(known, on="id", how="left", maintain_order="left")["row"]
    return None if found.null_count() or len(found) != len(rows) else found.to_numpy().astype(np.int64)


def pca(embedding: Matrix, rows: Rows) -> tuple[Float64s, tuple[float, float]]:
    """Return the first two principal coordinates of some rows, [m, 2], and the shares of variance along both.

    The components are those of all rows; that of an embedding of one column is 0. An axis points to where its farthest
    row is, since a component's own sign means nothing.
    """
    own = moments(embedding)
    found = _upright(principal_coordinates(embedding[rows], own))
    values = np.append(own.eigenvalues, 0.0)
    first, second = values[:2] / (values.sum() or 1.0)
    return found, (float(first), float(second))


def _upright(coordinates: Float64s) -> Float64s:
    flat = np.zeros((len(coordinates), 2))
    flat[:, : coordinates.shape[1]] = coordinates
    farthest = flat[np.abs(flat).argmax(0), [0, 1]]
    return flat * np.where(farthest < 0, -1.0, 1.0)


def tsne(embedding: Matrix, seed: int) -> Float64s:
    """Return t-SNE of a standardised embedding, [n, 2], started from its principal coordinates.

    Columns that are constant are left out; what has no neighbours, three rows or all alike, stays at the start.
    """
    own = moments(embedding)
    deviation = np.sqrt(np.diag(own.covariance)[own.moving])
    kept = ((embedding - own.mean)[:, own.moving] / deviation).astype(np.float32)
    if kept.shape[1] == 0:
        return np.zeros((len(embedding), 2))
    start = _upright(principal_coordinates(kept, moments(kept)))
    if len(kept) < 4:
        return start
    from sklearn import manifold  # noqa: PLC0415

    start *= 1e-4 / start[:, 0].std()
    method = manifold.TSNE(
        perplexity=min(PERPLEXITY, (len(kept) - 1) / 3), init=start.astype(np.float32), random_state=seed, n_jobs=1
    )
    found: Float64s = method.fit_transform(kept).astype(np.float64)
    return found
