"""Recently popular: recommends the items with the most recent interactions to every user."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from adrec.config.base import Settings
from adrec.config.parsing import require
from adrec.data.dataset import Dataset
from adrec.data.spans import spans
from adrec.data.split import Split
from adrec.models.base import training_sequences, training_weights
from adrec.models.baselines.popularity import Popularity


@dataclass(frozen=True)
class RecentPopularityConfig(Settings):
    """The time decay of popularity.

    Attributes:
        half_life: the age at which an interaction counts half, as a share of the training period.
    """

    half_life: float = 0.05

    def __post_init__(self) -> None:
        require(self.half_life > 0, f"half_life must be above 0; it is {self.half_life}.")


class RecentPopularity(Popularity):
    """Scores item i by ``sum 2^(-age / half_life)`` over its training interactions.

    Age is the time before the last training interaction of all users, as a share of the training period. If times only
    give an order (``time_unit`` is ``none``), those of two users cannot be compared: they are often positions in each
    user's own sequence. Age is then the share of the user's own training interactions that come later.

    For every history the counts are those at the end of training: the model does not receive the time of a request.
    """

    name = "recent"
    paper = "Ji, Sun, Zhang and Li: A Re-visit of the Popularity Baseline in Recommender Systems (SIGIR 2020), DecayPop"
    Config = RecentPopularityConfig
    uses_seed = False
    config: RecentPopularityConfig

    def fit(self, dataset: Dataset, split: Split, *, seed: int = 0, device: torch.device | None = None) -> None:
        """Sum the weights of the interactions of the training part."""
        items, _ = training_sequences(dataset, split)
        weights = np.exp2(-ages(dataset, split) / self.config.half_life)
        counted = training_weights(dataset, split)
        if counted is not None:
            weights = weights * counted
        counts = np.bincount(items, weights, minlength=split.num_items + 1).astype(np.float32)
        self.restore({"counts": torch.from_numpy(counts)}, split.num_items, device)


def ages(dataset: Dataset, split: Split) -> NDArray[np.float64]:
    """Return the age of each training interaction at the end of training, as a share, in [0, 1]."""
    starts = np.asarray(dataset.offsets[:-1])
    lengths = np.asarray(split.train_ends) - starts
    if dataset.info.time_unit == "none":
        later = np.repeat(lengths, lengths) - 1 - spans(np.zeros_like(lengths), lengths)
        shares: NDArray[np.float64] = later / np.repeat(lengths, lengths)
        return shares
    times = np.asarray(dataset.times[spans(starts, lengths)])
    ago: NDArray[np.float64] = (times.max() - times).astype(np.float64)
    return ago / (ago.max() or 1.0)
