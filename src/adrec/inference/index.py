"""An index of item vectors for large catalogues: the largest inner products without looking at every item.

The index finds candidates; their scores are then computed exactly. What it misses is measured on histories of the data
set: its recall is the share of the exact top items that it finds.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from adrec.data.spans import Int64s
from adrec.utils.errors import ConfigError, needs_extra

if TYPE_CHECKING:
    from adrec.inference.engine import Engine
    from adrec.models.dense import DenseScorer

IndexName = Literal["usearch"]
TRIED = 200  # histories on which the recall is measured
AT = 10  # the recall is that of the first so many items
LINKS, BUILT, FIRST_SEARCHED, MOST_SEARCHED = 32, 200, 128, 2048  # of the graph
WANTED = 0.99  # recall: the search is widened until it is reached


@dataclass(frozen=True)
class ItemIndex:
    """A graph of item vectors (HNSW: Malkov and Yashunin 2020, arXiv 1603.09320).

    Attributes:
        graph: usearch's index of the items 1..V under the inner product.
        vectors: the item vectors by number, [V + 1, D].
        searched: the number of nearest items that a search keeps in view.
        recall: the share of the exact first items that are found.
    """

    graph: object
    vectors: NDArray[np.float32]
    searched: int
    recall: float = float("nan")

    def candidates(self, query: NDArray[np.float32], count: int) -> Int64s:
        """Return about ``count`` item numbers with the largest inner products with ``query`` [D]."""
        self.graph.expansion_search = max(self.searched, count)  # type: ignore[attr-defined]
        found = self.graph.search(query, count).keys  # type: ignore[attr-defined]
        numbers: Int64s = found.astype(np.int64)
        return numbers


def indexed(engine: Engine, name: IndexName, *, threads: int = 0) -> ItemIndex:
    """Build the index of an engine's items, and measure its recall on histories of the data set.

    The search is widened until the recall is at least :data:`WANTED`, or it keeps :data:`MOST_SEARCHED` items in view.

    Raises:
        ConfigError: for a model whose scores are not inner products with item vectors, or without usearch.
    """
    dense = engine.dense
    if dense is None:
        raise ConfigError(
            f"--index {name} needs a model whose scores are inner products with item vectors; leave it out."
        )
    try:
        from usearch.index import Index  # noqa: PLC0415 - an extra
    except ImportError as error:
        raise ConfigError(needs_extra("--index usearch", "index")) from error
    vectors = np.ascontiguousarray(dense.items.cpu().numpy())
    graph = Index(
        ndim=vectors.shape[1], metric="ip", dtype="f32", connectivity=LINKS, expansion_add=BUILT,
        expansion_search=FIRST_SEARCHED,
    )  # fmt: skip
    graph.add(np.arange(1, len(vectors)), vectors[1:], threads=threads)
    index = ItemIndex(graph, vectors, FIRST_SEARCHED)
    queries = _queries(engine, dense)
    exact = [_exact(query, vectors) for query in queries]
    while True:
        index = replace(index, recall=_recall(index, queries, exact))
        if index.recall >= WANTED or index.searched >= MOST_SEARCHED:
            return index
        index = replace(index, searched=2 * index.searched)


def _queries(engine: Engine, dense: DenseScorer) -> NDArray[np.float32]:
    """Return the queries of some users' histories, [n, D]."""
    dataset = engine.dataset
    users = np.random.default_rng(0).permutation(dataset.num_users)[: 4 * TRIED]
    histories = [dataset.history(int(user)).astype(np.int64) for user in users]
    known = [each[each <= engine.num_items] for each in histories]
    some = [each for each in known if len(each)][:TRIED]
    found: NDArray[np.float32] = dense.queries(some).cpu().numpy()
    return found


def _exact(query: NDArray[np.float32], vectors: NDArray[np.float32]) -> set[int]:
    scores = vectors @ query
    scores[0] = -np.inf
    return set(np.argpartition(-scores, AT)[:AT].tolist()) if len(scores) > AT + 1 else set(range(1, len(scores)))


def _recall(index: ItemIndex, queries: NDArray[np.float32], exact: Sequence[set[int]]) -> float:
    shares = [
        len(wanted.intersection(index.candidates(query, AT).tolist())) / len(wanted)
        for query, wanted in zip(queries, exact, strict=True)
    ]
    return float(np.mean(shares))
