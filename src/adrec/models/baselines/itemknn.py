"""Item-based nearest neighbours: the similarities of co-occurring items, summed over the history."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, ClassVar

import numpy as np
import torch
from scipy import sparse
from torch import Tensor

from adrec.config.base import Settings
from adrec.config.parsing import require
from adrec.data.batch import PackedBatch
from adrec.data.dataset import Dataset
from adrec.data.sparse import Matrix, row_positions
from adrec.data.split import Split
from adrec.models.base import Model
from adrec.models.baselines.sparse import (
    SparseScores,
    from_tensors,
    history_matrix,
    sequence_items,
    strongest,
    to_tensors,
)

PRESETS: Mapping[str, Mapping[str, Any]] = MappingProxyType(
    {"default": {}, "published": {"neighbours": 20, "shrinkage": 0.0, "decay": 1.0}}
)
ITEMS_AT_ONCE = 1024  # block size of the co-occurrence count: it bounds the memory of fitting


@dataclass(frozen=True)
class ItemKNNConfig(Settings):
    """The neighbours of an item and the weights of a history.

    Attributes:
        neighbours: n, the number of most similar items kept for each item.
        shrinkage: h, added to the cosine's denominator to discount rare co-occurrences; 0 in the paper.
        decay: the weight of an item of the history relative to the next one; 1 (uniform) in the paper.
    """

    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = PRESETS
    neighbours: int = 100
    shrinkage: float = 30.0
    decay: float = 0.6

    def __post_init__(self) -> None:
        require(self.neighbours >= 1, f"neighbours must be at least 1; it is {self.neighbours}.")
        require(self.shrinkage >= 0, f"shrinkage must not be negative; it is {self.shrinkage}.")
        require(0 < self.decay <= 1, f"decay must be in (0, 1]; it is {self.decay}.")


class ItemKNN(Model):
    """Scores item j by ``sum_i decay^a_i sim(i, j)`` over the items i of the history that have j as a neighbour.

    ``sim(i, j) = c_ij / (sqrt(c_i c_j) + h)``: c_ij users have both in training, c_i have i; item i last occurred a_i
    interactions ago. No item is its own neighbour. An item that is not a neighbour of any item of the history scores 0.
    """

    name = "itemknn"
    paper = "Deshpande and Karypis: Item-Based Top-N Recommendation Algorithms (TOIS 2004)"
    Config = ItemKNNConfig
    uses_seed = False
    config: ItemKNNConfig

    def fit(self, dataset: Dataset, split: Split, *, seed: int = 0, device: torch.device | None = None) -> None:
        """Count co-occurrences in the training part, a block of items at a time, and keep each item's neighbours."""
        users = sequence_items(dataset, split)  # [U, V + 1]
        items = users.T.tocsr()  # [V + 1, U]
        blocks = [
            strongest(self._similarities(items, users, first), self.config.neighbours)
            for first in range(0, split.num_items + 1, ITEMS_AT_ONCE)
        ]
        self.restore(to_tensors("similar", sparse.vstack(blocks, format="csr")), split.num_items, device)

    def _similarities(self, items: Matrix, users: Matrix, first: int) -> Matrix:
        """Return the similarities of a block of items, from number ``first`` on, to all items, sparse [b, V + 1]."""
        counts = np.diff(items.indptr).astype(np.float64)  # [V + 1]
        together = items[first : first + ITEMS_AT_ONCE] @ users
        rows, _ = row_positions(together)
        itself = rows + first == together.indices
        norms = np.sqrt(counts[rows + first] * counts[together.indices])
        together.data = np.where(itself, 0, together.data / (norms + self.config.shrinkage)).astype(np.float32)
        together.eliminate_zeros()
        return together

    def __call__(self, batch: PackedBatch) -> SparseScores:
        """Return the sums of the similarities to each history's items."""
        return SparseScores(history_matrix(batch, self.num_items, self.config.decay) @ self._similar)

    def state(self) -> Mapping[str, Tensor]:
        """Return the similarities of each item to its neighbours, sparse [V + 1, V + 1]."""
        return to_tensors("similar", self._similar)

    def restore(self, state: Mapping[str, Tensor], num_items: int, device: torch.device | None = None) -> None:
        """Load the similarities."""
        self._similar, self.num_items = from_tensors("similar", state, num_items + 1, num_items + 1), num_items
