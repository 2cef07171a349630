"""A softmax over some of the catalogue: all items of a batch, and others that are drawn to stand for the rest."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Generator, Tensor

from adrec.data.batch import PackedBatch


@dataclass(frozen=True)
class Classes:
    """The items that a training step's softmax is over.

    Attributes:
        items: item numbers, ascending, int64 [C].
        offsets: what is added to the logit of each, [C]: a drawn item counts for as many as were not drawn.
    """

    items: Tensor
    offsets: Tensor

    def indices(self, items: Tensor) -> Tensor:
        """Return the index of each of ``items`` among the classes, which hold all of them."""
        return torch.searchsorted(self.items, items)


def draw_classes(batch: PackedBatch, count: int, num_items: int, padding_class: bool, rng: Generator) -> Classes:
    """Return the items and targets of ``batch``, and ``count`` of the catalogue's others, drawn uniformly, none twice.

    With log(others / drawn) added to the logits of those drawn, the expectation of the sum over the classes of
    exp(logit) is the sum over the catalogue; the loss, its logarithm, comes near as more are drawn. What can be raised
    by repeats is an item of the batch, so it is there. The processor waits for a GPU to count them, once a step.
    """
    present = [batch.items, batch.targets]
    if padding_class:
        present.append(torch.zeros_like(batch.items[:1]))
    kept = torch.unique(torch.cat(present))
    order = torch.rand(num_items + 1, generator=rng, device=kept.device)
    order[kept], order[0] = 2, 2  # behind all others
    others = num_items - len(kept) + int(padding_class)
    drawn = order.topk(min(count, others), largest=False).indices
    weight = math.log(others / len(drawn)) if len(drawn) else 0.0
    items, place = torch.cat([kept, drawn]).sort()
    return Classes(items, (place >= len(kept)) * weight)
