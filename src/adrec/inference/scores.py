"""Scores of a batch of histories, taken block by block over the catalogue: the best items, and ranks by counting.

A block of scores fits the processor's cache: it is computed, masked, counted and searched there, and overwritten by the
next. No matrix of users x catalogue ever exists, and nothing is sorted.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from adrec.data.spans import Int64s
from adrec.nn.scores import ItemPairs, Scores
from adrec.utils.errors import RunError

BLOCK = 1 << 22  # scores at a time: 16 MiB of float32
FEWEST_ITEMS = 1024  # of a block


@dataclass(frozen=True)
class Masked:
    """Which items may not be recommended to whom.

    Attributes:
        pairs: histories, and an item that each may not get.
        excluded: item numbers that nobody may get, bool [V + 1]; None where there are none.
    """

    pairs: ItemPairs
    excluded: Tensor | None = None

    @classmethod
    def of(cls, rows: Int64s, items: Int64s, excluded: Tensor | None = None) -> Masked:
        """Return the mask of (row, item) pairs in any order."""
        return cls(ItemPairs.of(rows, items), excluded)

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

    Scores that are nearer to the target's than rounding allows to tell are compared precisely, so that a count depends
    neither on the blocks nor on the batch. A tie counts against the model.

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
    rows, best = torch.arange(len(targets), device=targets.device), Best(top)
    own = scores.of(rows, targets)  # [B], float64
    rounding = 2 * scores.rounding()  # [B, 1]
    is_exact = not rounding.any()
    at = own[:, None].to(rounding.dtype)
    low, high = at - rounding, at + rounding
    counts = torch.zeros_like(targets)
    for items, block in masked_blocks(scores, item_blocks(scores.num_users, first, num_items), masked):
        inside = ((targets >= items.start) & (targets < items.stop)).long()  # [B]
        not_below = (block >= low).sum(1) - inside
        if is_exact:
            counts += not_below
        else:
            above = (block > high).sum(1)  # [B]
            near = (not_below > above).nonzero()[:, 0]  # the histories with other items that near
            counts += above
            if len(near):
                bounds = low[near], high[near]
                counts[near] += _ties(scores, near, items, block[near], bounds, own[near], targets[near])
        if top:
            if items.start == 0:
                block[:, 0] = -torch.inf
            best.add(items, block)
    return counts.cpu(), best.result()[0] if top else torch.empty(len(targets), 0, dtype=torch.int64)


def _ties(
    scores: Scores,
    rows: Tensor,
    items: slice,
    block: Tensor,
    bounds: tuple[Tensor, Tensor],
    own: Tensor,
    targets: Tensor,
) -> Tensor:
    """Return of each of the ``rows`` [r] how many items of ``block`` [r, n] within the bounds are not below its own.

    The target itself does not count.
    """
    low, high = bounds
    row, column = ((block >= low) & (block <= high)).nonzero().unbind(1)  # [pairs] each
    numbers = column + items.start
    not_below = (scores.of(rows[row], numbers) >= own[row]) & (numbers != targets[row])
    return torch.zeros_like(rows).index_add_(0, row, not_below.long())
