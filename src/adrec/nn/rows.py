"""The rows of the item embedding that a training step needs: those of its items, and of some drawn from the catalogue.

A step copies these R rows and numbers its items within them, so the network computes as it does for a catalogue of R
items. Its cost does not depend on the size of the catalogue.

The softmax over the rows estimates that over the catalogue. A row that stands for others gets the logarithm of their
number added to its logit, so that the expected sum of exp(logit) is the catalogue's (importance sampling; Bengio and
Senecal 2008, and the logQ correction of Yi et al. 2019).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import torch
from torch import Generator, Tensor

from adrec.data.batch import PackedBatch
from adrec.data.sequences import Sequences
from adrec.data.spans import spans

Draw = Literal["uniform", "popularity", "mixed", "batch"]
NEEDS_COUNTS = ("popularity", "mixed", "batch")


@dataclass(frozen=True)
class Rows:
    """The rows of a training step.

    Attributes:
        items: item numbers, ascending, int64 [R]; the first is 0, the padding.
        offsets: the number added to each row's logit, [R].
        drawn: how often each was drawn as a negative, [R].
    """

    items: Tensor
    offsets: Tensor
    drawn: Tensor

    def local(self, batch: PackedBatch) -> PackedBatch:
        """Return the batch with its items and targets numbered within the rows, 0 to R - 1."""
        items = torch.searchsorted(self.items, batch.items)
        return replace(
            batch,
            items=items,
            targets=torch.searchsorted(self.items, batch.targets),
            numbers=None if batch.numbers is None else items.cpu().numpy(),
        )


@dataclass(frozen=True)
class RowSampler:
    """Draws the rows of a step.

    Attributes:
        draw: how items are drawn: ``uniform``; ``popularity``, in proportion to their training interactions plus 1;
            ``mixed``, half of each; ``batch`` draws none and takes the items of the batch for a sample by popularity.
        count: the number of draws, with replacement.
        num_items: V.
        popularity: the cumulative share of items 1 to V in the training interactions, float64 [V]; None if unused.
    """

    draw: Draw
    count: int
    num_items: int
    popularity: Tensor | None = None

    @classmethod
    def of(cls, draw: Draw, count: int, sequences: Sequences, num_items: int, device: torch.device) -> RowSampler:
        """Return the sampler for training on ``sequences``."""
        if draw not in NEEDS_COUNTS:
            return cls(draw, count, num_items)
        trained = sequences.items[spans(sequences.starts, sequences.ends - sequences.starts)]
        counts = np.bincount(trained, minlength=num_items + 1)[1 : num_items + 1] + 1.0
        return cls(draw, count, num_items, torch.from_numpy(np.cumsum(counts) / counts.sum()).to(device))

    def rows(self, batch: PackedBatch, rng: Generator) -> Rows:
        """Return the rows for a training step on ``batch``.

        An item of the batch counts as itself; any other stands for 1 / (expected number of its draws) items. With
        ``batch``, every item stands for 1 / (its probability to be in a batch of this size). Finding the distinct items
        synchronises with a GPU.
        """
        own = torch.cat([batch.items.new_zeros(1), batch.items, batch.targets])
        drawn = self._drawn(own.device, rng)
        items, index = torch.unique(torch.cat([own, drawn]), return_inverse=True)
        times = torch.bincount(index[len(own) :], minlength=len(items)).double()
        share = self._shares(items)
        if self.draw == "batch":
            size = len(batch.items) + batch.num_users  # interactions
            offsets = -torch.log(-torch.expm1(size * torch.log1p(-share)))
        else:
            is_own = torch.zeros(len(items), dtype=torch.bool, device=own.device)
            is_own[index[: len(own)]] = True
            offsets = torch.where(is_own, 0.0, torch.log(times / (self.count * share)))
        offsets[0] = 0.0  # padding is in every batch
        return Rows(items, offsets.float(), times.float())

    def _drawn(self, device: torch.device, rng: Generator) -> Tensor:
        """Return the drawn items, int64 [count]."""
        if self.draw == "batch":
            return torch.empty(0, dtype=torch.int64, device=device)
        by_count = {"uniform": 0, "mixed": self.count // 2, "popularity": self.count}[self.draw]
        drawn = torch.randint(1, self.num_items + 1, (self.count - by_count,), generator=rng, device=device)
        if self.popularity is None or by_count == 0:
            return drawn
        points = torch.rand(by_count, generator=rng, device=device, dtype=torch.float64)
        popular = torch.searchsorted(self.popularity, points, right=True).clamp_(max=self.num_items - 1) + 1
        return torch.cat([drawn, popular])

    def _shares(self, items: Tensor) -> Tensor:
        """Return the probability that a draw is each of ``items``, float64 [R]; that of the padding is meaningless."""
        uniform = torch.full((len(items),), 1 / self.num_items, dtype=torch.float64, device=items.device)
        if self.popularity is None or self.draw == "uniform":
            return uniform
        upper = self.popularity[(items - 1).clamp(min=0)]
        below = torch.where(items > 1, self.popularity[(items - 2).clamp(min=0)], 0.0)
        by_count = (self.count // 2) / self.count if self.draw == "mixed" else 1.0
        return by_count * (upper - below) + (1 - by_count) * uniform
