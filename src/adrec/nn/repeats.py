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
        firsts = _firsts(batch, int(items.max()))
        wanted = firsts.users[:, None] * firsts.width + items
        at = np.searchsorted(firsts.keys, wanted).clip(max=len(firsts.keys) - 1)
        first = firsts.tokens[at]
        seen = (firsts.keys[at] == wanted) & (first <= np.arange(len(firsts.users))[:, None])
        in_history = firsts.until[first] - 1 - firsts.before[firsts.users, None]
        return np.where(seen, self.starts[:-1, None] + in_history, -1)

    def part(self, first: int, end: int) -> tuple[Tensor, Tensor]:
        """Return the pairs of some tokens: token indices relative to ``first``, and item numbers."""
        some = self.pairs(slice(first, end))
        return self.rows[some] - first, self.items[some]


def met(batch: PackedBatch, tokens: Int64s) -> tuple[Int64s, Int64s, Int64s]:
    """Return the fields rows, items and starts of :class:`Repeats` for some ``tokens`` [n] of a batch, on the CPU."""
    firsts = _firsts(batch)
    begin = firsts.before[firsts.users[tokens]]
    counts = firsts.until[tokens] - begin
    rows = np.repeat(np.arange(len(tokens)), counts)
    in_order = np.flatnonzero(np.diff(firsts.until, prepend=0))
    return rows, firsts.items[in_order[spans(begin, counts)]], np.concatenate([[0], np.cumsum(counts)])


@dataclass(frozen=True)
class _Firsts:
    """The first token of each item in each sequence of a batch, on the CPU.

    Attributes:
        items: the item of each token, int64 [N].
        users: the user of each token, int64 [N].
        width: a number above all items.
        keys: ``user * width + item`` of each user and item, ascending, int64 [F].
        tokens: the first token of each, int64 [F].
        until: the number of first tokens up to each token, int64 [N].
        before: the number of first tokens before each user, int64 [B].
    """

    items: Int64s
    users: Int64s
    width: int
    keys: Int64s
    tokens: Int64s
    until: Int64s
    before: Int64s


def _firsts(batch: PackedBatch, highest: int = 0) -> _Firsts:
    """Return the first tokens of ``batch``; ``highest`` is the largest item number that will be looked up."""
    items = batch.items.cpu().numpy() if batch.numbers is None else batch.numbers
    users = np.repeat(np.arange(batch.num_users), batch.lengths)
    width = max(int(items.max()), highest) + 1
    keys, tokens = np.unique(users * width + items, return_index=True)
    is_first = np.zeros(len(items), dtype=bool)
    is_first[tokens] = True
    until = np.cumsum(is_first)
    before = until[np.cumsum(batch.lengths) - batch.lengths] - 1  # a user's first token is the first of its item
    return _Firsts(items, users, width, keys, tokens, until, before)


def met_by_histories(batch: PackedBatch) -> ItemPairs:
    """Return the distinct items that each user of ``batch`` has seen, up to its last token."""
    rows, items, _ = met(batch, np.cumsum(batch.lengths) - 1)
    return ItemPairs.of(rows, items).to(batch.items.device)
