"""Personal frequency: recommends the items that each user has most often and most recently, then popular ones.

Where people return to items, as with groceries, few models beat it (Li et al. 2023, arXiv 2109.14233). Where seen items
are left out, it is ``popular``.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from adrec.config.base import Settings
from adrec.config.parsing import require
from adrec.data.batch import PackedBatch
from adrec.models.base import NO_LIMIT
from adrec.models.baselines.popularity import Popularity
from adrec.nn.scores import Biased, ItemPairs, Scores, Table


@dataclass(frozen=True)
class PersonalConfig(Settings):
    """The decay of a history.

    Attributes:
        half_life: the number of later interactions after which an interaction counts half; 0 counts all alike.
    """

    half_life: float = 100.0

    def __post_init__(self) -> None:
        require(self.half_life >= 0, f"half_life must not be negative; it is {self.half_life}.")


class Personal(Popularity):
    """Scores an item of the history by ``1 + sum 2^(-later / half_life)`` over its interactions there.

    ``later`` is the number of interactions after it. Any other item is scored by its share of the most popular item's
    training interactions, below 1. So a user's own items come first, by frequency and recency (personalised item
    frequency with decay, as in TIFU-KNN), and popular ones follow.
    """

    name = "personal"
    weighs_events = False
    paper = "Hu et al.: Modeling Personalized Item Frequency Information for Next-basket Recommendation (SIGIR 2020)"
    Config = PersonalConfig
    config: PersonalConfig
    max_length = NO_LIMIT

    def __call__(self, batch: PackedBatch) -> Scores:
        """Return the scores of each history."""
        items, lengths = batch.items.cpu().numpy(), batch.lengths
        users = np.repeat(np.arange(batch.num_users), lengths)
        later = np.repeat(np.cumsum(lengths), lengths) - 1 - np.arange(len(items))
        half_life = self.config.half_life
        weights = np.exp2(-later / half_life) if half_life else np.ones(len(items))
        pairs, pair = np.unique(items * np.int64(batch.num_users) + users, return_inverse=True)  # by item, then user
        numbers, rows = np.divmod(pairs, batch.num_users)
        shares = self.counts / (self.counts.max() + 1)  # [V + 1], below 1
        own = torch.from_numpy(1 + np.bincount(pair, weights)).to(shares.dtype)
        bias = own - shares[torch.from_numpy(numbers)]
        return Biased(Table(shares.expand(batch.num_users, -1)), ItemPairs.of(rows, numbers), bias)
