"""Most popular: every user gets the items with the most interactions. The floor that any model must beat."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from adrec.data.batch import PackedBatch
from adrec.scoring import InnerProducts


class Popularity:
    """Scores each item by its number of interactions.

    Args:
        counts: interactions by item number, [V + 1]; of the training part, to be evaluated honestly.
    """

    max_length = 1
    ranks_padding = False

    def __init__(self, counts: NDArray[np.int64]) -> None:
        self.counts = torch.from_numpy(counts.astype(np.float32))[:, None]  # [V + 1, 1]

    @property
    def num_items(self) -> int:
        """V, the size of the catalogue."""
        return len(self.counts) - 1

    def __call__(self, batch: PackedBatch) -> InnerProducts:
        """Return the same scores for every history."""
        return InnerProducts(torch.ones(batch.num_users, 1), self.counts)
