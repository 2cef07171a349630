"""Personal frequency: recommends the items that each user has most often and most recently, then popular ones.

Where people return to items, as with groceries, few models beat it (Li et al. 2023, arXiv 2109.14233). Where seen items
are left out, it is ``popular``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from adrec.config.base import Settings
from adrec.config.parsing import require
from adrec.data.batch import PackedBatch
from adrec.data.dataset import Dataset
from adrec.data.split import Split
from adrec.models.base import Model, training_sequences
from adrec.models.baselines.popularity import item_counts
from adrec.nn.scores import Biased, ItemPairs, Table


@dataclass(frozen=True)
class PersonalConfig(Settings):
    """The decay of a history.

    Attributes:
        half_life: the number of later interactions after which an interaction counts half; 0 counts all alike.
    """

    half_life: float = 100.0

    def __post_init__(self) -> None:
        require(self.half_life >= 0, f"half_life must not be negative; it is {self.half_life}.")


class Personal(Model):
    """Scores an item of the history by ``1 + sum 2^(-later / half_life)`` over its interactions there.

    ``later`` is the number of interactions after it. Any other item is scored by its share of the most popular item's
    training interactions, below 1. So a user's own items come first, by frequency and recency (personalised item
    frequency with decay, as in TIFU-KNN), and popular ones follow.
    """

    name = "personal"
    paper = "Hu et al.: Modeling Personalized Item Frequency Information for Next-basket Recommendation (SIGIR 2020)"
    Config = PersonalConfig
    uses_seed = False
    config: PersonalConfig

    def fit(self, dataset: Dataset, split: Split, *, seed: int = 0, device: torch.device | None = None) -> None:
        """Count the interactions of the training part."""
        items, _ = training_sequences(dataset, split)
        counts = np.bincount(items, minlength=split.num_items + 1).astype(np.float32)
        self.restore({"counts": torch.from_numpy(counts)}, split.num_items, device)

    def __call__(self, batch: PackedBatch) -> Biased:
        """Return the scores of each history."""
        items, lengths = batch.items.cpu().numpy(), batch.lengths
        users = np.repeat(np.arange(batch.num_users), lengths)
        later = np.repeat(np.cumsum(lengths), lengths) - 1 - np.arange(len(items))
        half_life = self.config.half_life
        weights = np.exp2(-later / half_life) if half_life else np.ones(len(items))
        order = np.lexsort((users, items))  # as ItemPairs are: by item
        pairs, first = np.unique(items[order] * np.int64(batch.num_users) + users[order], return_index=True)
        own = np.add.reduceat(weights[order], first)
        numbers, rows = np.divmod(pairs, batch.num_users)
        bias = torch.from_numpy((1 + own).astype(np.float32)) - self._shares[torch.from_numpy(numbers)]
        return Biased(Table(self._shares.expand(batch.num_users, -1)), ItemPairs.of(rows, numbers), bias)

    def state(self) -> Mapping[str, Tensor]:
        """Return the counts, [V + 1] by item number."""
        return {"counts": self._counts}

    def restore(self, state: Mapping[str, Tensor], num_items: int, device: torch.device | None = None) -> None:
        """Load the counts."""
        self._counts, self.num_items = item_counts(state, num_items), num_items
        self._shares = self._counts / (self._counts.max() + 1)  # [V + 1], below 1
