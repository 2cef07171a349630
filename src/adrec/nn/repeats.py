"""The items that each token has seen so far, for a learned preference for or against repeats."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from adrec.data.batch import PackedBatch
from adrec.data.spans import Int64s, spans
from adrec.nn.scores import ItemPairs


@dataclass(frozen=True)
class Repeats:
    """For each of some tokens, the distinct items of its sequence up to itself, as pairs in token order.

    Attributes:
        rows: the index of the token, int64 [P].
        items: the number of an item it has seen, int64 [P].
        starts: offsets: the start of each token's pairs, and the end of the last one's, int64 [tokens + 1], on the CPU.
    """

    rows: Tensor
    items: Tensor
    starts: Int64s

    @classmethod
    def of_tokens(cls, batch: PackedBatch) -> Repeats:
        """Return the items seen so far by each of the N tokens of ``batch``."""
        rows, items, starts = met(batch, np.arange(len(batch.items)))
        put = [torch.from_numpy(each).to(batch.items.device, non_blocking=True) for each in (rows, items)]
        return cls(put[0], put[1], starts)

    def pairs(self, tokens: slice) -> slice:
        """Return the indices of the pairs of some tokens."""
        return slice(int(self.starts[tokens.start]), int(self.starts[tokens.stop]))

    def positions(self, batch: PackedBatch, items: Int64s) -> Int64s:
        """Return the position of the pair of each token of ``batch`` and some ``items`` [N, n], -1 for unseen items."""
        there, users = _numbers(batch), np.repeat(np.arange(batch.num_users), batch.lengths)
        width = max(int(there.max()), int(items.max())) + 1
        known, first = np.unique(users * width + there, return_index=True)  # of each user and item, its first token
        until = np.zeros(len(there), dtype=np.int64)
        until[first] = 1
        until = np.cumsum(until)  # the number of first occurrences up to each token
        before = until[np.cumsum(batch.lengths) - batch.lengths] - 1  # the same, before each user
        wanted = users[:, None] * width + items
        at = np.searchsorted(known, wanted).clip(max=len(known) - 1)
        seen = (known[at] == wanted) & (first[at] <= np.arange(len(there))[:, None])
        return np.where(seen, self.starts[:-1, None] + until[first[at]] - 1 - before[users, None], -1)

    def part(self, first: int, end: int) -> tuple[Tensor, Tensor]:
        """Return the pairs of some tokens: token indices relative to ``first``, and item numbers."""
        some = self.pairs(slice(first, end))
        return self.rows[some] - first, self.items[some]


def met(batch: PackedBatch, tokens: Int64s) -> tuple[Int64s, Int64s, Int64s]:
    """Return the fields rows, items and starts of :class:`Repeats` for some ``tokens`` [n] of a batch, on the CPU."""
    items = _numbers(batch)
    users = np.repeat(np.arange(batch.num_users), batch.lengths)
    is_first = np.zeros(len(items), dtype=bool)
    is_first[np.unique(users * (int(items.max()) + 1) + items, return_index=True)[1]] = True
    until = np.cumsum(is_first)  # the number of first occurrences up to each token
    before = until[np.cumsum(batch.lengths) - batch.lengths] - 1  # the same, before each user
    begin = before[users[tokens]]
    counts = until[tokens] - begin
    rows = np.repeat(np.arange(len(tokens)), counts)
    return rows, items[np.flatnonzero(is_first)[spans(begin, counts)]], np.concatenate([[0], np.cumsum(counts)])


def _numbers(batch: PackedBatch) -> Int64s:
    """Return the item of each token, on the CPU."""
    return batch.items.cpu().numpy() if batch.numbers is None else batch.numbers


def met_by_histories(batch: PackedBatch) -> ItemPairs:
    """Return the distinct items that each user of ``batch`` has seen, up to its last token."""
    rows, items, _ = met(batch, np.cumsum(batch.lengths) - 1)
    return ItemPairs.of(rows, items).to(batch.items.device)
