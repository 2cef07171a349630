"""Markov chain: scores items by how often they follow the history's last item in training."""

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
from adrec.data.sparse import csr
from adrec.data.split import Split
from adrec.models.base import Model, training_sequences, training_weights
from adrec.models.baselines.popularity import item_counts
from adrec.models.baselines.sparse import SparseScores, from_tensors, to_tensors


@dataclass(frozen=True)
class MarkovConfig(Settings):
    """The smoothing of the Markov chain.

    Attributes:
        smoothing: the number of pseudo-transitions of each item, distributed by popularity. If it is far below one
            over the largest share, popularity only breaks ties between equally frequent transitions.
    """

    smoothing: float = 1.0

    def __post_init__(self) -> None:
        require(self.smoothing > 0, f"smoothing must be above 0; it is {self.smoothing}.")


class Markov(Model):
    """Scores item j after item i by the chain's first-order probability, smoothed towards popularity.

    ``P(j | i) = (n_ij + m p_j) / (n_i + m)``: n_ij transitions from i to j in training, n_i from i to any; p_j is the
    share of j in all training interactions, and m is ``smoothing`` (a Dirichlet prior). After an item without
    transitions, items rank by popularity; so do the items that never followed a given one. With event weights, each
    transition and interaction counts by the weight of its target.
    """

    name = "markov"
    paper = "Zimdars, Chickering and Meek: Using Temporal Data for Making Recommendations (UAI 2001)"
    Config = MarkovConfig
    uses_seed = False
    weighs_events = True
    config: MarkovConfig
    max_length = 1

    def fit(self, dataset: Dataset, split: Split, *, seed: int = 0, device: torch.device | None = None) -> None:
        """Count the transitions and interactions of the training part."""
        items, offsets = training_sequences(dataset, split)
        shape = (split.num_items + 1, split.num_items + 1)
        goes_on = np.ones(len(items), dtype=bool)
        goes_on[offsets[1:][np.diff(offsets) > 0] - 1] = False  # the last item of each sequence
        before = np.flatnonzero(goes_on)
        weights = training_weights(dataset, split)
        steps = np.ones(len(before)) if weights is None else weights[before + 1]
        transitions = csr(steps, items[before], items[before + 1], shape)
        counts = torch.from_numpy(np.bincount(items, weights, minlength=shape[0]).astype(np.float32))
        self.restore({"counts": counts, **to_tensors("transitions", transitions)}, split.num_items, device)

    def __call__(self, batch: PackedBatch) -> SparseScores:
        """Return the smoothed probabilities of the item after each history's last item."""
        last = batch.items[batch.cu_seqlens[1:] - 1].cpu().numpy()  # [B]
        made_up = self.config.smoothing
        shares = 1 / (self._outgoing[last] + made_up)  # [B]
        rows = self._transitions[last].multiply(shares[:, None].astype(np.float32)).tocsr()  # [B, V + 1]
        weights = torch.from_numpy((made_up * shares).astype(np.float32))[:, None]
        return SparseScores(rows, (weights, self._popularity))

    def state(self) -> Mapping[str, Tensor]:
        """Return the transitions, sparse [V + 1, V + 1], and each item's interactions, [V + 1]."""
        return {"counts": self._counts, **to_tensors("transitions", self._transitions)}

    def restore(self, state: Mapping[str, Tensor], num_items: int, device: torch.device | None = None) -> None:
        """Load the counts."""
        self._transitions = from_tensors("transitions", state, num_items + 1, num_items + 1)
        self._counts, self.num_items = item_counts(state, num_items), num_items
        self._outgoing = np.asarray(self._transitions.sum(axis=1))  # [V + 1]
        self._popularity = self._counts / self._counts.sum()
