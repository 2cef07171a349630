"""An index of item vectors for large catalogues: the largest inner products without looking at every item.

The index finds candidates; their scores are then computed exactly. What it misses is measured on histories of the data
set: its recall is the share of the exact top items that it finds.
"""

from __future__ import annotations

import hashlib
import warnings
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from adrec.data.spans import Int64s
from adrec.utils.errors import ConfigError, UserError, needs_extra
from adrec.utils.files import write_bytes

if TYPE_CHECKING:
    from adrec.inference.engine import Engine
    from adrec.models.dense import DenseScorer

IndexName = Literal["usearch"]
TRIED = 200  # histories on which the recall is measured
AT, SPARE = 10, 16  # the recall is that of the first AT items, of SPARE candidates more than are asked for
DIGEST = 32  # bytes before the graph in its file
LINKS, BUILT, FIRST_SEARCHED, MOST_SEARCHED = 16, 128, 128, 4096  # of the graph
WANTED, HALVINGS = 0.99, 3  # the recall that a search must reach; steps to the narrowest that does


@dataclass(frozen=True)
class ItemIndex:
    """A graph of item vectors (HNSW: Malkov and Yashunin 2020, arXiv 1603.09320).

    A graph needs distances. With one more number, ``sqrt(M^2 - |x|^2)``, M the largest length, all vectors x have the
    same length, and those nearest to (q, 0) have the largest inner products with q (Bachrach et al. 2014, "Speeding up
    the Xbox recommender system using a Euclidean transformation for inner-product spaces").

    Attributes:
        graph: usearch's index of the lengthened vectors of items 1..V.
        searched: the number of nearest items that a search keeps in view.
        recall: the share of the exact first items that are found.
    """

    graph: Any
    searched: int
    recall: float = float("nan")

    def candidates(self, query: NDArray[np.float32], count: int) -> Int64s:
        """Return about ``count`` item numbers with the largest inner products with ``query`` [D]."""
        self.graph.expansion_search = max(self.searched, count)
        found = self.graph.search(np.append(query, np.float32(0)), count).keys
        numbers: Int64s = found.astype(np.int64)
        return numbers


def indexed(engine: Engine, name: IndexName, *, cache: Path | None = None, threads: int = 0) -> ItemIndex:
    """Build the index of an engine's items, and measure its recall on histories of the data set.

    The search is as wide as a recall of :data:`WANTED` needs, but keeps at most :data:`MOST_SEARCHED` items in view.

    Args:
        engine: of the model.
        name: the kind of index.
        cache: a file to keep the graph in, and to take it from if it is there; its name must identify the vectors.
        threads: the number of threads that build it; 0 takes all cores.

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
        ndim=vectors.shape[1] + 1, metric="l2sq", dtype="f16", connectivity=LINKS, expansion_add=BUILT,
        expansion_search=FIRST_SEARCHED,
    )  # fmt: skip
    if cache is None or not _read(graph, cache, len(vectors) - 1):
        squares = np.square(vectors[1:]).sum(1)
        last = np.sqrt(squares.max() - squares)
        graph.add(np.arange(1, len(vectors)), np.column_stack([vectors[1:], last]), threads=threads)
        if cache is not None:
            _write(graph, cache)
    return _widened(ItemIndex(graph, FIRST_SEARCHED), vectors, _queries(engine, dense))


def _read(graph: Any, cache: Path, num_items: int) -> bool:
    """Read the graph from a file; return whether it was there, whole, and of so many items.

    Its content is checked before usearch reads it, which a damaged file can bring down.
    """
    try:
        content = cache.read_bytes()
    except OSError:
        return False
    digest, graph_bytes = content[:DIGEST], content[DIGEST:]
    if hashlib.sha256(graph_bytes).digest() != digest:
        return False
    graph.load(graph_bytes)
    if len(graph) == num_items:
        return True
    graph.reset()
    return False


def _write(graph: Any, cache: Path) -> None:
    """Keep the graph in a file; a folder that cannot be written is no error, as the graph can be built again."""
    content = bytes(graph.save())
    try:
        write_bytes(cache, hashlib.sha256(content).digest() + content)
    except (OSError, UserError):
        warnings.warn(f"the index cannot be kept in {cache}; it is built at each start.", UserWarning, stacklevel=2)


def _widened(index: ItemIndex, vectors: NDArray[np.float32], queries: NDArray[np.float32]) -> ItemIndex:
    """Return an index that keeps as many items in view as its recall needs."""
    everything = np.arange(1, len(vectors))
    exact = [_first(vectors[1:] @ query, everything) for query in queries]

    def measured(searched: int) -> ItemIndex:
        wider = replace(index, searched=searched)
        some = [wider.candidates(query, AT + SPARE) for query in queries]
        found = [_first(vectors[own] @ query, own) for own, query in zip(some, queries, strict=True)]
        shares = [len(wanted & own) / len(wanted) for wanted, own in zip(exact, found, strict=True)]
        return replace(wider, recall=float(np.mean(shares)))

    low, best = 0, measured(index.searched)
    while best.recall < WANTED and best.searched < MOST_SEARCHED:
        low, best = best.searched, measured(2 * best.searched)
    for _ in range(HALVINGS if low else 0):
        middle = measured((low + best.searched) // 2)
        if middle.recall >= WANTED:
            best = middle
        else:
            low = middle.searched
    return best


def _first(scores: NDArray[np.float32], numbers: Int64s) -> set[int]:
    """Return those of some item numbers that have the largest scores."""
    first = np.argpartition(-scores, AT)[:AT] if len(scores) > AT + 1 else np.arange(len(scores))
    return set(numbers[first].tolist())


def _queries(engine: Engine, dense: DenseScorer) -> NDArray[np.float32]:
    """Return the queries of some users' histories, [n, D]."""
    dataset = engine.dataset
    users = np.random.default_rng(0).permutation(dataset.num_users)[: 4 * TRIED]
    histories = [dataset.history(int(user)).astype(np.int64) for user in users]
    known = [each[each <= engine.num_items] for each in histories]
    some = [each for each in known if len(each)][:TRIED]
    found: NDArray[np.float32] = dense.queries(some).cpu().numpy()
    return found
