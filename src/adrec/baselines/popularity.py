"""Most popular: every user gets the items with the most interactions. The floor that any model must beat."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from adrec.data.batch import PackedBatch


class Popularity:
    """Scores each item by its number of interactions.

    Args:
        counts: interactions by item number, [V + 1]; of the training part, to be evaluated honestly.
    """

    max_length = 1

    def __init__(self, counts: NDArray[np.int64]) -> None:
        self.scores = torch.from_numpy(counts.astype(np.float32))
        self.scores[0] = -torch.inf

    @property
    def num_items(self) -> int:
        """V, the size of the catalogue."""
        return len(self.scores) - 1

    def __call__(self, batch: PackedBatch) -> Tensor:
        """Return the same scores for every history, [B, V + 1]."""
        return self.scores.repeat(batch.num_users, 1)
