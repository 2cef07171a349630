"""Negatives, which are drawn for each token, and the losses of its target against them.

They are drawn for a whole batch in advance, so that the losses of the parts of a batch add up to its own.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from adrec.data.batch import PackedBatch
from adrec.nn.kernels.sampled import some_scores


@dataclass(frozen=True)
class Negatives:
    """The negatives of a training step.

    Attributes:
        items: k item numbers for each token, int64 [N, k].
    """

    items: Tensor

    def select(self, users: Tensor, tokens: Tensor) -> Negatives:
        """Return the draws of some ``users`` [b] of the batch, whose tokens are ``tokens`` [n]."""
        return Negatives(self.items[tokens])


def draw_others(targets: Tensor, count: int, num_items: int, rng: Generator) -> Negatives:
    """Draw ``count`` items for each of the ``targets`` [N], uniformly from the V - 1 other items.

    A catalogue of one item has no other item; the target itself is then drawn.
    """
    shape = (len(targets), count)
    items = torch.randint(1, max(num_items, 2), shape, generator=rng, device=targets.device)  # [N, k]
    return Negatives((items + (items >= targets[:, None]).long()).clamp_(max=num_items))


def draw_unseen(batch: PackedBatch, num_items: int, rng: Generator) -> Negatives:
    """Draw one item for each token, uniformly from the items that are not in its user's sequence s_1..s_{n+1}.

    The draw is exact, without rejection: the r-th unseen item is r + 1 plus the number of seen items before it. For a
    user who has seen the whole catalogue, the last item is drawn.
    """
    lengths, device = batch.cu_seqlens.diff(), batch.items.device
    users = torch.arange(batch.num_users, device=device).repeat_interleave(lengths, output_size=len(batch.items))  # [N]
    width = num_items + 1
    own = users * width
    seen = torch.unique(torch.cat([own + batch.items, own + batch.targets]))  # user by user, ascending
    owner = seen // width
    counts = torch.bincount(owner, minlength=batch.num_users)  # [B]
    first = counts.cumsum(0) - counts  # [B]
    position = torch.arange(len(seen), device=device) - first[owner]
    unseen_before = owner * width + seen % width - 1 - position  # the number of unseen items before each, user by user
    free = (num_items - counts).clamp_(min=1)[users]  # [N]
    r = (torch.rand(len(users), generator=rng, device=device, dtype=torch.float64) * free).long()
    passed = torch.searchsorted(unseen_before, own + r, right=True) - first[users]  # seen items before the r-th unseen
    return Negatives((r + 1 + passed).clamp_(max=num_items)[:, None])


def target_and_negatives(x: Tensor, item_embedding: Tensor, targets: Tensor, negatives: Negatives) -> Tensor:
    """Return the scores of each token's target, then of its negatives, [N, 1 + k]."""
    items = torch.cat([targets[:, None], negatives.items], 1)  # [N, 1 + k]
    return some_scores(x, item_embedding, items)


def binary_cross_entropy(scores: Tensor, beta: float = 1.0) -> Tensor:
    """Return ``-beta log sigmoid(target) - sum log(1 - sigmoid(negative))`` of the scores [N, 1 + k], [N]."""
    return -beta * F.logsigmoid(scores[:, 0]) - F.logsigmoid(-scores[:, 1:]).sum(1)


def sampled_softmax(scores: Tensor) -> Tensor:
    """Return the cross-entropy of the target among itself and the negatives, scores [N, 1 + k], [N]."""
    return scores.logsumexp(1) - scores[:, 0]
