"""Recently popular: every user gets the items with the most interactions of late."""

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
from adrec.models.base import training_sequences
from adrec.models.baselines.popularity import Popularity


@dataclass(frozen=True)
class RecentPopularityConfig(Settings):
    """What recent is.

    Attributes:
        half_life: after which share of the training part's time an interaction counts half.
    """

    half_life: float = 0.05

    def __post_init__(self) -> None:
        require(self.half_life > 0, f"half_life must be above 0; it is {self.half_life}.")


class RecentPopularity(Popularity):
    """Scores item i by ``sum 2^(-age / half_life)`` over its training interactions.

    Age is a share: how long before the last training interaction of all, of the time from the first to the last. Where
    times only give an order (``time_unit`` is ``none``) that of two users cannot be compared: they are often places in
    each user's own sequence. Age then is the share of the user's own training interactions that come later.

    The counts are those at the end of training, for every history: a model is not told when it is asked.
    """

    name = "recent"
    paper = "Ji, Sun, Zhang and Li: A Re-visit of the Popularity Baseline in Recommender Systems (SIGIR 2020), DecayPop"
    Config = RecentPopularityConfig
    uses_seed = False
    config: RecentPopularityConfig

    def fit(self, dataset: Dataset, split: Split, *, seed: int = 0, device: torch.device | None = None) -> None:
        """Add up the weights of the interactions of the training part."""
        items, _ = training_sequences(dataset, split)
        weights = np.exp2(-ages(dataset, split) / self.config.half_life)
        counts = np.bincount(items, weights, minlength=split.num_items + 1).astype(np.float32)
        self.restore({"counts": torch.from_numpy(counts)}, split.num_items, device)


def ages(dataset: Dataset, split: Split) -> NDArray[np.float64]:
    """Return how long ago each training interaction was when training ended, as a share, in [0, 1]."""
    starts = np.asarray(dataset.offsets[:-1])
    lengths = np.asarray(split.train_ends) - starts
    if dataset.info.time_unit == "none":
        later = np.repeat(lengths, lengths) - 1 - spans(np.zeros_like(lengths), lengths)
        shares: NDArray[np.float64] = later / np.repeat(lengths, lengths)
        return shares
    times = np.asarray(dataset.times[spans(starts, lengths)])
    ago: NDArray[np.float64] = (times.max() - times).astype(np.float64)
    return ago / (ago.max() or 1.0)
