"""Top-k items and ranks from the scores of a batch of histories, block by block over the catalogue.

A block of scores fits the CPU cache. It is computed, masked, counted and searched there, and then overwritten by the
next block. The full users x catalogue matrix is never built, and nothing is sorted.
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

BLOCK = 1 << 21  # scores in a block: 8 MiB of float32
FEWEST_ITEMS = 1024  # minimum number of items in a block
FLOOR = -80.0  # exp of less is as good as 0, and several times as slow: float32 has no normal number for it


@dataclass(frozen=True)
class Only:
    """The items that alone may be recommended to some histories.

    Attributes:
        rows: the histories, int64.
        pairs: their (history, item) pairs.
    """

    rows: Tensor
    pairs: ItemPairs

    def to(self, device: torch.device) -> Only:
        """Return the same for scores on ``device``."""
        return Only(self.rows.to(device, non_blocking=True), self.pairs.to(device))

    def apply(self, block: Tensor, items: slice) -> None:
        """Set all other scores of these histories to ``-inf``, in place."""
        rows, columns = self.pairs.within(items)
        kept = block[rows, columns]
        block[self.rows] = -torch.inf
        block[rows, columns] = kept


@dataclass(frozen=True)
class Masked:
    """The items that may not be recommended, for each history and for all.

    Attributes:
        pairs: (history, item) pairs that are masked.
        excluded: item numbers masked for all histories, bool [V + 1]; None if there are none.
        only: the items that alone may be recommended to some histories.
    """

    pairs: ItemPairs
    excluded: Tensor | None = None
    only: Only | None = None

    @classmethod
    def of(cls, rows: Int64s, items: Int64s, excluded: Tensor | None = None) -> Masked:
        """Return the mask of (row, item) pairs in any order."""
        return cls(ItemPairs.of(rows, items), excluded)

    def to(self, device: torch.device) -> Masked:
        """Return the mask for scores on ``device``."""
        excluded = None if self.excluded is None else self.excluded.to(device, non_blocking=True)
        return Masked(self.pairs.to(device), excluded, None if self.only is None else self.only.to(device))

    def apply(self, block: Tensor, items: slice) -> None:
        """Set masked scores in the ``block`` of some item numbers to ``-inf``, in place."""
        if self.only is not None:
            self.only.apply(block, items)
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

    Raises :class:`RunError` after the last block if a score is NaN: this synchronises with the GPU only once.
    """
    masked = masked.to(scores.device)
    broken = torch.zeros((), dtype=torch.bool, device=scores.device)
    for items in blocks:
        block = scores.block(items)  # [B, n]
        broken |= block.sum().isnan()  # a sum is several times as fast as a look at each
        masked.apply(block, items)
        yield items, block
    if broken:
        raise RunError(
            "the model's scores are not numbers: its training has diverged; train it again with a smaller "
            "learning_rate."
        )


def log_total(scores: Tensor, temperature: float, largest: Tensor) -> Tensor:
    """Return the logarithm of the sum of exp(score / temperature) of each row, [B]; -inf where all scores are.

    Args:
        scores: [B, n].
        temperature: of the softmax.
        largest: the largest score of each row, [B].
    """
    usable = largest > -torch.inf
    start = torch.where(usable, largest, 0.0)
    terms = torch.sub(scores, start[:, None]).mul_(1 / temperature).clamp_(min=FLOOR).exp_()
    return torch.where(usable, start / temperature + terms.sum(1).log(), -torch.inf)


class Best:
    """A running top-k of each history over blocks of items.

    Attributes:
        scores: the best scores so far, best first, [B, up to k].
        items: their item numbers, int64 [B, up to k].
        log_total: the logarithm of the sum of exp(score / temperature) over all items so far, [B]; None without a
            temperature.
    """

    def __init__(self, k: int, temperature: float | None = None) -> None:
        self.k, self.temperature = k, temperature
        self.log_total: Tensor | None = None
        self.scores: Tensor | None = None
        self.items: Tensor | None = None

    def add(self, items: slice, block: Tensor) -> None:
        """Merge a block [B, n] into the top k."""
        largest: Tensor | None = None
        if self.temperature is not None:
            largest = block.amax(1)
            total = log_total(block, self.temperature, largest)
            self.log_total = total if self.log_total is None else torch.logaddexp(self.log_total, total)
        if self.scores is None or self.items is None:
            self.scores, indices = block.topk(min(self.k, block.shape[1]), dim=1)
            self.items = indices + items.start
        elif self.scores.shape[1] < self.k or not block.is_cpu:
            self.scores, self.items = self._merged(self.scores, self.items, items, block)
        else:  # few histories have one of their best items in a late block
            largest = block.amax(1) if largest is None else largest
            some = (largest > self.scores[:, -1]).nonzero()[:, 0]
            if len(some):
                merged = self._merged(self.scores[some], self.items[some], items, block[some])
                self.scores[some], self.items[some] = merged

    def _merged(self, best: Tensor, numbers: Tensor, items: slice, block: Tensor) -> tuple[Tensor, Tensor]:
        """Return the best of the scores ``best`` [b, up to k] of some items and of a block [b, n], with their items."""
        scores, indices = block.topk(min(self.k, block.shape[1]), dim=1)
        both, chosen = torch.cat([best, scores], 1).topk(min(self.k, best.shape[1] + scores.shape[1]))
        return both, torch.cat([numbers, indices + items.start], 1).gather(1, chosen)

    def result(self) -> tuple[Tensor, Tensor]:
        """Return item numbers and scores, [B, up to k] each, on the CPU; unfilled slots hold item 0."""
        assert self.scores is not None and self.items is not None, "no block was added"
        return torch.where(self.scores > -torch.inf, self.items, 0).cpu(), self.scores.cpu()


def best_items(scores: Scores, k: int, num_items: int, masked: Masked = NOTHING) -> tuple[Tensor, Tensor]:
    """Return the item numbers and scores of each history's k best items, [B, up to k] each; padding is excluded."""
    return _best(Best(k), scores, num_items, masked).result()


def probable_items(
    scores: Scores, k: int, num_items: int, masked: Masked, temperature: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Return :func:`best_items`, and their probabilities [B, up to k]: the softmax of score / ``temperature``.

    The softmax is over all items that are not masked.
    """
    best = _best(Best(k, temperature), scores, num_items, masked)
    assert best.items is not None and best.scores is not None and best.log_total is not None
    items = torch.where(best.scores > -torch.inf, best.items, 0).cpu()
    together = torch.cat([best.scores, best.log_total[:, None]], 1).cpu()  # one transfer: each waits for the GPU
    found = together[:, :-1]
    return items, found, torch.where(items > 0, (found / temperature - together[:, -1:]).exp(), 0.0)


def _best(best: Best, scores: Scores, num_items: int, masked: Masked) -> Best:
    for items, block in masked_blocks(scores, item_blocks(scores.num_users, 1, num_items), masked):
        best.add(items, block)
    return best


def count_above(
    scores: Scores,
    targets: Tensor,
    num_items: int,
    masked: Masked = NOTHING,
    *,
    first: int = 1,
    top: int = 0,
    own: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Return the number of other items that score at least as high as each target, and the top items of each ranking.

    Scores closer to the target's than the rounding bound are compared precisely, so that a count depends neither on the
    blocks nor on the batch. A tie counts against the model.

    Args:
        scores: the scores of B histories.
        targets: an item number for each history, int64 [B]; the count of a masked target is meaningless.
        num_items: V.
        masked: the items left out of the ranking.
        first: the first item number of the ranking; 0 also ranks the padding row.
        top: the number of top items to return; padding is excluded.
        own: the precise score of each target, float64 [B], if a target is -1: an item that is not among these scores.

    Returns:
        Counts, int64 [B], and item numbers, int64 [B, up to top].
    """
    rows, best = torch.arange(len(targets), device=targets.device), Best(top)
    own = scores.of(rows, targets) if own is None else own  # [B], float64
    rounding = 2 * scores.rounding()  # [B, 1]
    is_exact = not rounding.any()
    at = own[:, None].to(rounding.dtype)
    low, high = at - rounding, at + rounding
    counts = torch.zeros_like(targets)
    for items, block in masked_blocks(scores, item_blocks(scores.num_users, first, num_items), masked):
        inside = ((targets >= items.start) & (targets < items.stop)).long()  # [B]
        truth = torch.empty_like(block)  # as numbers, whose sum is ten times as fast as that of booleans
        not_below = torch.ge(block, low, out=truth).sum(1).long() - inside
        if is_exact:
            counts += not_below
        else:
            above = torch.gt(block, high, out=truth).sum(1).long()  # [B]
            near = (not_below > above).nonzero()[:, 0]  # the histories with other items within the bounds
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
    """Return, for each of the ``rows`` [r], how many near items of ``block`` [r, n] score no lower than its target.

    Near items are those within the bounds. The target itself is not counted.
    """
    low, high = bounds
    row, column = ((block >= low) & (block <= high)).nonzero().unbind(1)  # [pairs] each
    numbers = column + items.start
    not_below = (scores.of(rows[row], numbers) >= own[row]) & (numbers != targets[row])
    return torch.zeros_like(rows).index_add_(0, row, not_below.long())
