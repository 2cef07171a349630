"""Sampled softmax: the classes are all items of a batch and a random sample of the rest of the catalogue."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Generator, Tensor

from adrec.data.batch import PackedBatch


@dataclass(frozen=True)
class Classes:
    """The classes of a training step's softmax.

    Attributes:
        items: item numbers, ascending, int64 [C].
        offsets: the number added to each class's logit, [C]; it weights a sampled item for the items not sampled.
    """

    items: Tensor
    offsets: Tensor

    def indices(self, items: Tensor) -> Tensor:
        """Return the class index of each of ``items``, all of which must be classes."""
        return torch.searchsorted(self.items, items)


def draw_classes(batch: PackedBatch, count: int, num_items: int, padding_class: bool, rng: Generator) -> Classes:
    """Return the items and targets of ``batch`` and ``count`` other items, drawn uniformly without replacement.

    log(others / drawn) is added to the logits of the drawn items. The expected sum of exp(logit) over the classes is
    then the sum over the catalogue. The loss is its logarithm, and approaches the full loss as more items are drawn.
    An item that the repeat bias applies to is an item of the batch, so it is always a class. Counting the batch's
    items synchronises with the GPU once a step.
    """
    present = [batch.items, batch.targets]
    if padding_class:
        present.append(torch.zeros_like(batch.items[:1]))
    kept = torch.unique(torch.cat(present))
    order = torch.rand(num_items + 1, generator=rng, device=kept.device)
    order[kept], order[0] = 2, 2  # sorted after all others
    others = num_items - len(kept) + int(padding_class)
    drawn = order.topk(min(count, others), largest=False).indices
    weight = math.log(others / len(drawn)) if len(drawn) else 0.0
    items, original = torch.cat([kept, drawn]).sort()
    return Classes(items, (original >= len(kept)) * weight)
