"""The scores of a batch of histories for the catalogue, computed on demand."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from adrec.data.spans import Int64s

ROUNDING = 8  # the error bound of a product in units of float32's precision, relative to the product of both lengths


class Scores(Protocol):
    """The scores of B histories for every item number, computed on demand."""

    @property
    def num_users(self) -> int:
        """B."""

    @property
    def device(self) -> torch.device:
        """Where they are computed."""

    def block(self, items: slice) -> Tensor:
        """Return the scores of some item numbers, [B, n]; the caller may modify them."""

    def of(self, rows: Tensor, items: Tensor) -> Tensor:
        """Return the precise score of some (history, item number) pairs, int64 [n] each -> float64 [n]."""

    def rounding(self) -> Tensor:
        """Return the maximum difference between a number in a block and its precise score, [B, 1]."""


@dataclass(frozen=True)
class InnerProducts:
    """Scores ``query . item``.

    Attributes:
        query: the query vector of each history, [B, D].
        items: the item vectors by item number, [V + 1, D].
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

    def of(self, rows: Tensor, items: Tensor) -> Tensor:
        """Return the precise score of some pairs, [n]."""
        return (self.query[rows].double() * self.items[items].double()).sum(1)

    def rounding(self) -> Tensor:
        """Return the bound of the rounding error of an inner product, [B, 1]."""
        longest = self.items.norm(dim=1).max()
        return ROUNDING * torch.finfo(self.query.dtype).eps * longest * self.query.norm(dim=1, keepdim=True)


@dataclass(frozen=True)
class Table:
    """Scores computed in advance, [B, V + 1] by item number, for models without scores on demand."""

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

    def of(self, rows: Tensor, items: Tensor) -> Tensor:
        """Return the score of some pairs, [n]."""
        return self.scores[rows, items].double()

    def rounding(self) -> Tensor:
        """Return 0 for each history, [B, 1]: a block holds the exact scores."""
        return self.scores.new_zeros(len(self.scores), 1)


@dataclass(frozen=True)
class ItemPairs:
    """(row, item) pairs of a score matrix, looked up by blocks of items.

    Attributes:
        numbers: item numbers, ascending, int64 [n], on the CPU.
        items: the same, on the device of the scores.
        rows: the history of each pair, int64 [n].
    """

    numbers: Int64s
    items: Tensor
    rows: Tensor

    @classmethod
    def of(cls, rows: Int64s, items: Int64s) -> ItemPairs:
        """Return pairs given in any order."""
        order = np.argsort(items, kind="stable")
        numbers = items[order]
        return cls(numbers, torch.from_numpy(numbers), torch.from_numpy(rows[order]))

    def to(self, device: torch.device) -> ItemPairs:
        """Return the pairs for scores on ``device``."""
        return ItemPairs(self.numbers, *(each.to(device, non_blocking=True) for each in (self.items, self.rows)))

    def between(self, items: slice) -> slice:
        """Return the indices of the pairs within a block of item numbers."""
        first, end = np.searchsorted(self.numbers, [items.start, items.stop])
        return slice(int(first), int(end))

    def within(self, items: slice) -> tuple[Tensor, Tensor]:
        """Return the rows and columns of the pairs within a block of item numbers, [n] each."""
        some = self.between(items)
        return self.rows[some], self.items[some] - items.start


@dataclass(frozen=True)
class Biased:
    """Scores with a number added to some of them.

    Attributes:
        scores: the scores before the addition.
        pairs: the pairs whose score is raised.
        bias: the number, a scalar tensor, or one for each pair, [n].
    """

    scores: Scores
    pairs: ItemPairs
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
        bias = self.bias[self.pairs.between(items)] if self.bias.dim() else self.bias
        block[self.pairs.within(items)] += bias.to(block.dtype)
        return block

    def of(self, rows: Tensor, items: Tensor) -> Tensor:
        """Return the precise score of some pairs, [n]."""
        if len(self.pairs.numbers) == 0:
            return self.scores.of(rows, items)
        width = max(int(self.pairs.numbers[-1]), int(items.max())) + 1
        known, order = (self.pairs.rows * width + self.pairs.items).sort()
        wanted = rows * width + items
        at = torch.searchsorted(known, wanted).clamp_(max=len(known) - 1)
        bias = self.bias.double().expand(len(known))[order[at]]
        return self.scores.of(rows, items) + torch.where(known[at] == wanted, bias, 0.0)

    def rounding(self) -> Tensor:
        """Return the bound of the rounding error, [B, 1], including that of the sum."""
        largest = self.bias.abs().max() if self.bias.numel() else self.bias.sum()
        return 2 * self.scores.rounding() + ROUNDING * torch.finfo(torch.float32).eps * largest
