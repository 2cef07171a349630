"""Most popular: recommends the items with the most interactions to every user. The lower bound for any model."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from adrec.config.base import Settings
from adrec.data.batch import PackedBatch
from adrec.data.dataset import Dataset
from adrec.data.split import Split
from adrec.models.base import Model, training_sequences, training_weights
from adrec.nn.scores import Scores, Table


class Popularity(Model):
    """Scores each item by its number of training interactions, or the sum of their event weights."""

    name = "popular"
    paper = "no paper: the most interactions first"
    Config = Settings
    uses_seed = False
    weighs_events = True
    max_length = 1

    def fit(self, dataset: Dataset, split: Split, *, seed: int = 0, device: torch.device | None = None) -> None:
        """Count the interactions of the training part."""
        items, _ = training_sequences(dataset, split)
        counts = np.bincount(items, training_weights(dataset, split), minlength=split.num_items + 1).astype(np.float32)
        self.restore({"counts": torch.from_numpy(counts)}, split.num_items, device)

    def __call__(self, batch: PackedBatch) -> Scores:
        """Return the same scores for every history."""
        return Table(self.counts.expand(batch.num_users, -1))

    def state(self) -> Mapping[str, Tensor]:
        """Return the counts, [V + 1] by item number."""
        return {"counts": self.counts}

    def restore(self, state: Mapping[str, Tensor], num_items: int, device: torch.device | None = None) -> None:
        """Load the counts."""
        self.counts, self.num_items = item_counts(state, num_items), num_items


def item_counts(state: Mapping[str, Tensor], num_items: int) -> Tensor:
    """Return the ``counts`` of a state, [V + 1]. Raises KeyError or RuntimeError if they do not fit."""
    counts = state["counts"].cpu()
    if counts.shape != (num_items + 1,):
        raise RuntimeError(f"counts are {list(counts.shape)} where {num_items} items are known.")
    return counts
