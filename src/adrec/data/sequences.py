"""Training sequences of a stage: spans of a flat array, truncated to the network's window."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Generator

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
        weights: how much each of ``items`` counts as a target; None if all count the same.
        begins: whether each of ``items`` begins a basket, whose items have no order; None if all are in order.
    """

    items: NDArray[np.int32]
    starts: Int64s
    ends: Int64s
    max_length: int
    weights: NDArray[np.float32] | None = None
    begins: NDArray[np.bool_] | None = None

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
        return training_batch(self.items, self.starts[users], self.ends[users], self.max_length, self.weights)

    def history_batch(self, users: Int64s) -> PackedBatch:
        """Return the given sequences, [B], as a batch of histories for prediction."""
        return history_batch(self.items, self.starts[users], self.ends[users], self.max_length)

    def shuffled(self, rng: Generator) -> Sequences:
        """Return the sequences with the items of each basket in random order; the same ones without baskets."""
        if self.begins is None:
            return self
        draws = torch.rand(len(self.items), generator=rng, dtype=torch.float64).numpy()
        order = np.lexsort((draws, np.cumsum(self.begins)))
        weights = None if self.weights is None else self.weights[order]
        return replace(self, items=self.items[order], weights=weights)

    def behind(self, prefixes: NDArray[np.integer]) -> Sequences:
        """Return the sequences with a prefix of M items prepended to each, [U, M]; they have the mean weight."""
        lengths = self.ends - self.starts
        added = np.full_like(lengths, prefixes.shape[1])
        ends = np.cumsum(lengths + added)
        starts = ends - lengths - added
        before, after, own = spans(starts, added), spans(starts + added, lengths), spans(self.starts, lengths)

        def joined(values: NDArray[Any], prefix: Any) -> NDArray[Any]:
            whole = np.empty(len(before) + len(after), dtype=values.dtype)
            whole[before], whole[after] = prefix, values[own]
            return whole

        return Sequences(
            joined(self.items, prefixes.ravel()),
            starts,
            ends,
            self.max_length,
            None if self.weights is None else joined(self.weights, self.weights[own].mean()),
            None if self.begins is None else joined(self.begins, True),
        )
