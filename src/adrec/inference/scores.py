"""Scores of a batch of histories, taken block by block over the catalogue: the best items, and ranks by counting.

A block of scores fits the processor's cache: it is computed, masked, counted and searched there, and overwritten by the
next. No matrix of users x catalogue ever exists, and nothing is sorted.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from adrec.data.spans import Int64s
from adrec.utils.errors import RunError

BLOCK = 1 << 22  # scores at a time: 16 MiB of float32
FEWEST_ITEMS = 1024  # of a block
ROUNDING = 8  # units of float32's precision by which a product, computed twice in another order, may differ


class Scores(Protocol):
    """The scores of B histories for every item number, computed when they are asked for."""

    @property
    def num_users(self) -> int:
        """B."""

    @property
    def device(self) -> torch.device:
        """Where they are computed."""

    def block(self, items: slice) -> Tensor:
        """Return the scores of some item numbers, [B, n]; they are the caller's to change."""

    def of(self, items: Tensor) -> Tensor:
        """Return the score of one item for each history, int64 [B, 1] -> [B, 1]: at most what its block holds."""


@dataclass(frozen=True)
class InnerProducts:
    """Scores ``query . item``.

    Attributes:
        query: what each history asks for, [B, D].
        items: the items' vectors by item number, [V + 1, D].
    """

    query: Tensor
    items: Tensor

    @property
    def num_users(self) -> int:
        """B."""
        return len(self.query)

    @property
    def device(self) -> torch.device:
        """Where they are computed."""
        return self.query.device

    def block(self, items: slice) -> Tensor:
        """Return the scores of some item numbers, [B, n]."""
        return self.query @ self.items[items].T

    def of(self, items: Tensor) -> Tensor:
        """Return one score for each history, [B, 1], less what rounding may add: so ties count against the model."""
        products = self.query * self.items[items[:, 0]]  # [B, D]
        rounding = ROUNDING * torch.finfo(products.dtype).eps
        return products.sum(1, keepdim=True) - rounding * products.abs().sum(1, keepdim=True)


@dataclass(frozen=True)
class Table:
    """Scores that were computed at once, [B, V + 1] by item number: for models that cannot do otherwise."""

    scores: Tensor

    @property
    def num_users(self) -> int:
        """B."""
        return len(self.scores)

    @property
    def device(self) -> torch.device:
        """Where they are computed."""
        return self.scores.device

    def block(self, items: slice) -> Tensor:
        """Return a copy of the scores of some item numbers, [B, n]."""
        return self.scores[:, items].clone()

    def of(self, items: Tensor) -> Tensor:
        """Return one score for each history, [B, 1]."""
        return self.scores.gather(1, items)


@dataclass(frozen=True)
class Pairs:
    """(row, item) pairs of a matrix of scores, found by blocks of items.

    Attributes:
        numbers: item numbers, ascending, int64 [n], on the CPU.
        items: the same, where the scores are.
        rows: the history of each, int64 [n].
    """

    numbers: Int64s
    items: Tensor
    rows: Tensor

    @classmethod
    def of(cls, rows: Int64s, items: Int64s) -> Pairs:
        """Return pairs that come in any order."""
        order = np.argsort(items, kind="stable")
        numbers = items[order]
        return cls(numbers, torch.from_numpy(numbers), torch.from_numpy(rows[order]))

    def to(self, device: torch.device) -> Pairs:
        """Return the pairs for scores on ``device``."""
        return Pairs(self.numbers, *(each.to(device, non_blocking=True) for each in (self.items, self.rows)))

    def within(self, items: slice) -> tuple[Tensor, Tensor]:
        """Return the rows and columns of the block of some item numbers, [n] each."""
        first, end = np.searchsorted(self.numbers, [items.start, items.stop])
        return self.rows[first:end], self.items[first:end] - items.start


@dataclass(frozen=True)
class Biased:
    """Scores of which some have a number added.

    Attributes:
        scores: without it.
        pairs: which.
        bias: the number, a tensor without dimensions.
    """

    scores: Scores
    pairs: Pairs
    bias: Tensor

    @property
    def num_users(self) -> int:
        """B."""
        return self.scores.num_users

    @property
    def device(self) -> torch.device:
        """Where they are computed."""
        return self.scores.device

    def block(self, items: slice) -> Tensor:
        """Return the scores of some item numbers, [B, n]."""
        block = self.scores.block(items)
        block[self.pairs.within(items)] += self.bias
        return block

    def of(self, items: Tensor) -> Tensor:
        """Return one score for each history, [B, 1]."""
        scores = self.scores.of(items).clone()
        hits = self.pairs.rows[items[self.pairs.rows, 0] == self.pairs.items]
        scores[hits] += self.bias
        return scores


@dataclass(frozen=True)
class Masked:
    """Which items may not be recommended to whom.

    Attributes:
        pairs: histories, and an item that each may not get.
        excluded: item numbers that nobody may get, bool [V + 1]; None where there are none.
    """

    pairs: Pairs
    excluded: Tensor | None = None

    @classmethod
    def of(cls, rows: Int64s, items: Int64s, excluded: Tensor | None = None) -> Masked:
        """Return the mask of (row, item) pairs in any order."""
        return cls(Pairs.of(rows, items), excluded)

    def to(self, device: torch.device) -> Masked:
        """Return the mask for scores on ``device``."""
        excluded = None if self.excluded is None else self.excluded.to(device, non_blocking=True)
        return Masked(self.pairs.to(device), excluded)

    def apply(self, block: Tensor, items: slice) -> None:
        """Set what may not be recommended to ``-inf`` in the ``block`` of some item numbers, in place."""
        rows, columns = self.pairs.within(items)
        if len(rows):
            block[rows, columns] = -torch.inf
        if self.excluded is not None:
            block.masked_fill_(self.excluded[items], -torch.inf)


NOTHING = Masked.of(np.empty(0, dtype=np.int64), np.empty(0, dtype=np.int64))


def item_blocks(num_users: int, first: int, num_items: int) -> list[slice]:
    """Divide the item numbers from ``first`` to V into blocks of about :data:`BLOCK` scores."""
    width = max(FEWEST_ITEMS, BLOCK // max(num_users, 1))
    return [slice(start, min(start + width, num_items + 1)) for start in range(first, num_items + 1, width)]


def masked_blocks(scores: Scores, blocks: list[slice], masked: Masked) -> Iterator[tuple[slice, Tensor]]:
    """Yield each block's item numbers and scores.

    Raises :class:`RunError` behind the last one where a score is not a number: a GPU is waited for once.
    """
    masked = masked.to(scores.device)
    broken = torch.zeros((), dtype=torch.bool, device=scores.device)
    for items in blocks:
        block = scores.block(items)  # [B, n]
        broken |= torch.isnan(block).any()
        masked.apply(block, items)
        yield items, block
    if broken:
        raise RunError(
            "the model's scores are not numbers: its training has diverged; train it again with a smaller "
            "learning_rate."
        )


class Best:
    """The k best items of each history, over the blocks seen so far.

    Attributes:
        scores: theirs, best first, [B, up to k].
        items: their item numbers, int64 [B, up to k].
    """

    def __init__(self, k: int) -> None:
        self.k = k
        self.scores: Tensor | None = None
        self.items: Tensor | None = None

    def add(self, items: slice, block: Tensor) -> None:
        """Let the items of a block [B, n] compete."""
        scores, places = block.topk(min(self.k, block.shape[1]), dim=1)
        numbers = places + items.start
        if self.scores is not None and self.items is not None:
            both, places = torch.cat([self.scores, scores], 1).topk(min(self.k, self.scores.shape[1] + scores.shape[1]))
            scores, numbers = both, torch.cat([self.items, numbers], 1).gather(1, places)
        self.scores, self.items = scores, numbers

    def result(self) -> tuple[Tensor, Tensor]:
        """Return item numbers and scores, [B, up to k] each, on the CPU; slots that nothing fills hold item 0."""
        assert self.scores is not None and self.items is not None, "no block was added"
        return torch.where(self.scores > -torch.inf, self.items, 0).cpu(), self.scores.cpu()


def best_items(scores: Scores, k: int, num_items: int, masked: Masked = NOTHING) -> tuple[Tensor, Tensor]:
    """Return the k best item numbers of each history and their scores, [B, up to k] each; padding is none of them."""
    best = Best(k)
    for items, block in masked_blocks(scores, item_blocks(scores.num_users, 1, num_items), masked):
        best.add(items, block)
    return best.result()


def count_above(
    scores: Scores, targets: Tensor, num_items: int, masked: Masked = NOTHING, *, first: int = 1, top: int = 0
) -> tuple[Tensor, Tensor]:
    """Return how many other items score at least as high as each target, and the first items of each ranking.

    Args:
        scores: of B histories.
        targets: an item number each, int64 [B]; the count of one that is masked says nothing.
        num_items: V.
        masked: what is left out of the ranking.
        first: 0 ranks the padding's row too.
        top: how many first items to return; padding is none of them.

    Returns:
        Counts, int64 [B], and item numbers, int64 [B, up to top].
    """
    blocks, best, target = item_blocks(scores.num_users, first, num_items), Best(top), targets[:, None]
    # Within one block a target's score is the very number that stands there; beyond, it must be computed before.
    own = scores.of(target) if len(blocks) > 1 else None  # [B, 1]
    counts = torch.zeros_like(targets)
    for items, block in masked_blocks(scores, blocks, masked):
        inside = ((target >= items.start) & (target < items.stop))[:, 0]  # [B]
        in_block = block.gather(1, (target - items.start).clamp(0, block.shape[1] - 1))  # [B, 1]
        own = in_block if own is None else own
        counts += (block >= own).sum(1) - (inside & (in_block >= own)[:, 0]).long()
        if top:
            if items.start == 0:
                block[:, 0] = -torch.inf
            best.add(items, block)
    return counts.cpu(), best.result()[0] if top else torch.empty(len(targets), 0, dtype=torch.int64)
