"""Sequence-based nearest neighbours: items of the training sequences that share the history's last items."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import sparse
from torch import Tensor

from adrec.config.base import Settings
from adrec.config.parsing import require
from adrec.data.batch import PackedBatch
from adrec.data.dataset import Dataset
from adrec.data.spans import Int64s, spans
from adrec.data.sparse import Matrix, csr, row_positions
from adrec.data.split import Split
from adrec.models.base import Model, training_sequences
from adrec.models.baselines.sparse import SparseScores, from_tensors, last_uses, sequence_items, strongest, to_tensors

PRESETS: Mapping[str, Mapping[str, Any]] = MappingProxyType({"default": {}, "published": {"weights": "linear"}})
HISTORIES_AT_ONCE = 64  # block size of the comparison with candidates: it bounds the memory of scoring


@dataclass(frozen=True)
class VSKNNConfig(Settings):
    """The neighbours of a history.

    Attributes:
        neighbours: k, the number of most similar candidates whose items are scored.
        candidates: m, the number of most recent sequences that share an item with the history.
        weights: the weights of the history's n items, oldest first: ``linear`` 1/n, 2/n, .. 1, as in the paper, or
            ``division`` 1/n, 1/(n - 1), .. 1, the default of its authors' code.
    """

    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = PRESETS
    neighbours: int = 100
    candidates: int = 1000
    weights: Literal["linear", "division"] = "division"

    def __post_init__(self) -> None:
        require(self.neighbours >= 1, f"neighbours must be at least 1; it is {self.neighbours}.")
        require(
            self.candidates >= self.neighbours,
            f"candidates must be at least neighbours = {self.neighbours}; it is {self.candidates}.",
        )


class VSKNN(Model):
    """Vector multiplication session nearest neighbours (V-SKNN); the sequences are the users' training parts.

    The similarity of a history to a sequence is the sum of the weights of the history's items that are in the sequence.
    The score of item j is the sum of the similarities of those of the k nearest candidates that contain it.

    A candidate without items beyond the history has nothing to recommend, so it is not counted as a neighbour. This
    excludes the user's own training part, which would otherwise be the nearest neighbour of the user's history and
    raise items that the user already has. Candidates are excluded only by content, since scores do not depend on the
    user.

    Sequences are ordered by the time of their last training interaction, and ties by a hash of their content. If times
    only give an order, those of two users cannot be compared, and only the hash is used. The order of the users in the
    table never matters.
    """

    name = "vsknn"
    paper = "Ludewig and Jannach: Evaluation of Session-Based Recommendation Algorithms (UMUAI 2018), V-SKNN"
    Config = VSKNNConfig
    uses_seed = False
    config: VSKNNConfig

    def fit(self, dataset: Dataset, split: Split, *, seed: int = 0, device: torch.device | None = None) -> None:
        """Keep the items of each training sequence that has two or more, most recent sequences first."""
        sequences = sequence_items(dataset, split)[most_recent_first(dataset, split)]  # [U, V + 1]
        sequences = sequences[np.flatnonzero(np.diff(sequences.indptr) >= 2)]  # [S, V + 1]
        self.restore(to_tensors("sequences", sequences), split.num_items, device)

    def __call__(self, batch: PackedBatch) -> SparseScores:
        """Return the summed similarities of the neighbours that contain each item."""
        rows, items, ages = last_uses(batch)
        lengths = batch.lengths[rows]
        weights = (lengths - ages) / lengths if self.config.weights == "linear" else 1 / (ages + 1)
        histories = csr(weights, rows, items, (batch.num_users, self.num_items + 1))  # [B, V + 1]
        parts = [
            self._neighbours(histories[first : first + HISTORIES_AT_ONCE])
            for first in range(0, batch.num_users, HISTORIES_AT_ONCE)
        ]
        return SparseScores(sparse.vstack(parts, format="csr") @ self._sequences)

    def _neighbours(self, histories: Matrix) -> Matrix:
        """Return the similarities of b histories [b, V + 1] to their neighbours, sparse [b, S]."""
        similarities, shared = histories @ self._index, (histories > 0).astype(np.float32) @ self._index
        for each in (similarities, shared):
            each.sort_indices()  # the same entries, most recent first
        rows, position = row_positions(similarities)
        has_more = shared.data < self._sizes[similarities.indices]
        kept = np.flatnonzero((position < self.config.candidates) & has_more)
        some = csr(similarities.data[kept], rows[kept], similarities.indices[kept], similarities.shape)
        return strongest(some, self.config.neighbours)

    def state(self) -> Mapping[str, Tensor]:
        """Return the items of the sequences, sparse [S, V + 1], the most recent first."""
        return to_tensors("sequences", self._sequences)

    def restore(self, state: Mapping[str, Tensor], num_items: int, device: torch.device | None = None) -> None:
        """Load the sequences, and index them by item."""
        self._sequences, self.num_items = from_tensors("sequences", state, num_items + 1), num_items
        self._sizes = np.diff(self._sequences.indptr)  # [S]
        # A sequence among the m most recent that share any item of a history is among the m most recent of each item
        # that it shares. Keeping m for each item is therefore enough, and scoring does not grow with the number of
        # users.
        index = self._sequences.T.tocsr()  # [V + 1, S]
        rows, position = row_positions(index)
        kept = np.flatnonzero(position < self.config.candidates)
        self._index = csr(index.data[kept], rows[kept], index.indices[kept], index.shape)


def most_recent_first(dataset: Dataset, split: Split) -> Int64s:
    """Return the users by the time of their last training interaction, then by :func:`digests`; see :class:`VSKNN`."""
    last = np.asarray(dataset.times[np.maximum(split.train_ends - 1, 0)])  # [U]; of who trains nothing it is no matter
    keys = [digests(*training_sequences(dataset, split))]
    return np.lexsort(keys if dataset.info.time_unit == "none" else [*keys, -last])


def digests(items: NDArray[np.int32], offsets: Int64s) -> NDArray[np.uint64]:
    """Return a hash of the content of each sequence of items, uint64 [U]."""
    lengths = np.diff(offsets)
    positions = spans(np.zeros_like(lengths), lengths).astype(np.uint64)
    mixed = (items.astype(np.uint64) << np.uint64(32)) + positions
    for factor in (0x9E3779B97F4A7C15, 0xC2B2AE3D27D4EB4F):  # the multipliers are odd, with bits all over
        mixed = (mixed ^ (mixed >> np.uint64(29))) * np.uint64(factor)
    sums = np.concatenate([np.zeros(1, dtype=np.uint64), np.cumsum(mixed, dtype=np.uint64)])
    digest: NDArray[np.uint64] = sums[offsets[1:]] - sums[offsets[:-1]]  # both sums and difference wrap around
    return digest
