"""Training sequences of a stage: spans of a flat array, truncated to the network's window."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from adrec.data.batch import PackedBatch, history_batch, training_batch
from adrec.data.spans import Int64s, spans


@dataclass(frozen=True)
class Sequences:
    """U sequences, ``items[start:end]`` each.

    Attributes:
        items: item numbers, 1..V.
        starts: start of each sequence, int64 [U].
        ends: end of each sequence (exclusive), int64 [U].
        max_length: L, the number of last tokens that a network sees.
    """

    items: NDArray[np.int32]
    starts: Int64s
    ends: Int64s
    max_length: int

    def __len__(self) -> int:
        return len(self.starts)

    def at_least(self, interactions: int) -> Sequences:
        """Return the sequences of at least ``interactions`` interactions."""
        long = self.ends - self.starts >= interactions
        return replace(self, starts=self.starts[long], ends=self.ends[long])

    @property
    def num_interactions(self) -> int:
        """The number of interactions of all sequences, inside or outside the window."""
        return int((self.ends - self.starts).sum())

    @property
    def num_tokens(self) -> int:
        """The number of training tokens of all sequences: interactions that have a successor."""
        return int(np.minimum(self.ends - self.starts - 1, self.max_length).sum())

    def batch(self, users: Int64s) -> PackedBatch:
        """Return the training batch of the given sequences, [B]; each must have at least two interactions."""
        return training_batch(self.items, self.starts[users], self.ends[users], self.max_length)

    def history_batch(self, users: Int64s) -> PackedBatch:
        """Return the given sequences, [B], as a batch of histories for prediction."""
        return history_batch(self.items, self.starts[users], self.ends[users], self.max_length)

    def behind(self, prefixes: NDArray[np.integer]) -> Sequences:
        """Return the sequences with a prefix of M items prepended to each, [U, M]."""
        lengths = self.ends - self.starts
        added = np.full_like(lengths, prefixes.shape[1])
        ends = np.cumsum(lengths + added)
        starts = ends - lengths - added
        items = np.empty(int((lengths + added).sum()), dtype=np.int32)
        items[spans(starts, added)] = prefixes.ravel()
        items[spans(starts + added, lengths)] = self.items[spans(self.starts, lengths)]
        return Sequences(items, starts, ends, self.max_length)
