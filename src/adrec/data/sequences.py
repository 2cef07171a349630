"""What a stage trains on: sequences as spans of a flat array, and the part of each that a network sees."""

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
        starts: where each sequence begins, int64 [U].
        ends: where it ends (exclusive), int64 [U].
        max_length: L, how many of its last tokens a network sees.
    """

    items: NDArray[np.int32]
    starts: Int64s
    ends: Int64s
    max_length: int

    def __len__(self) -> int:
        return len(self.starts)

    def at_least(self, interactions: int) -> Sequences:
        """Return those of so many interactions or more."""
        long = self.ends - self.starts >= interactions
        return replace(self, starts=self.starts[long], ends=self.ends[long])

    @property
    def num_interactions(self) -> int:
        """Interactions of all of them, within reach of a network or not."""
        return int((self.ends - self.starts).sum())

    @property
    def num_tokens(self) -> int:
        """Training tokens of all of them: interactions that another one follows."""
        return int(np.minimum(self.ends - self.starts - 1, self.max_length).sum())

    def batch(self, users: Int64s) -> PackedBatch:
        """Return the training batch of some of them, [B]; each must have two interactions or more."""
        return training_batch(self.items, self.starts[users], self.ends[users], self.max_length)

    def history_batch(self, users: Int64s) -> PackedBatch:
        """Return some of them, [B], as histories, to tell from."""
        return history_batch(self.items, self.starts[users], self.ends[users], self.max_length)

    def behind(self, prefixes: NDArray[np.integer]) -> Sequences:
        """Return each sequence behind its own prefix: M items for each of them, [U, M]."""
        lengths = self.ends - self.starts
        added = np.full_like(lengths, prefixes.shape[1])
        ends = np.cumsum(lengths + added)
        starts = ends - lengths - added
        items = np.empty(int((lengths + added).sum()), dtype=np.int32)
        items[spans(starts, added)] = prefixes.ravel()
        items[spans(starts + added, lengths)] = self.items[spans(self.starts, lengths)]
        return Sequences(items, starts, ends, self.max_length)
