"""Losses on some of the catalogue: each token's target against negatives that were drawn for it.

Negatives are drawn for a whole batch before it is computed (:class:`Negatives`), so that its parts add up to it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from adrec.data.batch import PackedBatch

DENSE = 32  # so many items for each that is asked for: up to there all scores take less time than the few, gathered
PRODUCTS = 1 << 20  # numbers gathered, or scores, that are held at once: 4 MiB of float32, which a cache holds


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
    """Draw ``count`` items for each of the ``targets`` [N], uniformly from the V - 1 others.

    A catalogue of one item has no other: there the target itself is drawn.
    """
    shape = (len(targets), count)
    items = torch.randint(1, max(num_items, 2), shape, generator=rng, device=targets.device)  # [N, k]
    return Negatives((items + (items >= targets[:, None]).long()).clamp_(max=num_items))


def draw_unseen(batch: PackedBatch, num_items: int, rng: Generator) -> Negatives:
    """Draw one item for each token, uniformly from those that its user's sequence s_1..s_{n+1} does not have.

    Exactly, without trying again: the r-th unseen item is r + 1 plus the number of seen ones before it. A user who has
    seen the whole catalogue gets its last item.
    """
    lengths, device = batch.cu_seqlens.diff(), batch.items.device
    users = torch.arange(batch.num_users, device=device).repeat_interleave(lengths, output_size=len(batch.items))  # [N]
    width = num_items + 1
    own = users * width
    seen = torch.unique(torch.cat([own + batch.items, own + batch.targets]))  # user by user, ascending
    owner = seen // width
    counts = torch.bincount(owner, minlength=batch.num_users)  # [B]
    first = counts.cumsum(0) - counts  # [B]
    place = torch.arange(len(seen), device=device) - first[owner]
    unseen_before = owner * width + seen % width - 1 - place  # how many a seen item has before it, user by user
    free = (num_items - counts).clamp_(min=1)[users]  # [N]
    r = (torch.rand(len(users), generator=rng, device=device, dtype=torch.float64) * free).long()
    passed = torch.searchsorted(unseen_before, own + r, right=True) - first[users]  # seen items before the r-th unseen
    return Negatives((r + 1 + passed).clamp_(max=num_items)[:, None])


class SomeScores(torch.autograd.Function):
    """The products of each output with some items: all products in one matrix product, or gathered, which is faster."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, item_embedding: Tensor, items: Tensor) -> Tensor:
        """Return the score of each of ``items`` [N, m] with the outputs ``x`` [N, D], [N, m]."""
        embedding = item_embedding.to(x.dtype)  # [V + 1, D]
        ctx.save_for_backward(x, item_embedding, items)
        ctx.dense = len(embedding) <= DENSE * items.shape[1]
        scores = x.new_empty(items.shape)
        for some in _chunks(ctx.dense, embedding, items):
            if ctx.dense:
                torch.gather(x[some] @ embedding.T, 1, items[some], out=scores[some])
            else:
                scores[some] = torch.bmm(embedding[items[some]], x[some, :, None])[:, :, 0]
        return scores.to(torch.promote_types(x.dtype, torch.float32))

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, None]:
        """Return the gradients of the outputs and of the embedding."""
        x, item_embedding, items = ctx.saved_tensors
        embedding, grad = item_embedding.to(x.dtype), grad.to(x.dtype)
        d_x, d_embedding = torch.empty_like(x), torch.zeros_like(item_embedding)
        for some in _chunks(ctx.dense, embedding, items):
            if ctx.dense:
                spread = grad.new_zeros(len(grad[some]), len(embedding)).scatter_add_(1, items[some], grad[some])
                torch.mm(spread, embedding, out=d_x[some])
                d_embedding += spread.T @ x[some]
            else:
                d_x[some] = torch.bmm(grad[some, None], embedding[items[some]])[:, 0]
                of_items = (grad[some, :, None] * x[some, None]).flatten(0, 1)  # [c m, D]
                d_embedding.index_add_(0, items[some].flatten(), of_items.to(d_embedding.dtype))
        return d_x, d_embedding, None


def _chunks(dense: bool, embedding: Tensor, items: Tensor) -> list[slice]:
    """Divide the tokens so that what is held for some of them at once stays small."""
    each = len(embedding) if dense else items.shape[1] * embedding.shape[1]
    size = max(16, (4 if dense else 1) * PRODUCTS // each)
    return [slice(start, start + size) for start in range(0, len(items), size)]


def target_and_negatives(x: Tensor, item_embedding: Tensor, targets: Tensor, negatives: Negatives) -> Tensor:
    """Return the scores of each token's target, then of its negatives, [N, 1 + k]."""
    items = torch.cat([targets[:, None], negatives.items], 1)  # [N, 1 + k]
    scores: Tensor = SomeScores.apply(x, item_embedding, items)  # type: ignore[no-untyped-call]
    return scores


def binary_cross_entropy(scores: Tensor, beta: float = 1.0) -> Tensor:
    """Return ``-beta log sigmoid(target) - sum log(1 - sigmoid(negative))`` of the scores [N, 1 + k], [N]."""
    return -beta * F.logsigmoid(scores[:, 0]) - F.logsigmoid(-scores[:, 1:]).sum(1)


def sampled_softmax(scores: Tensor) -> Tensor:
    """Return the cross-entropy of the target among itself and the negatives, scores [N, 1 + k], [N]."""
    return scores.logsumexp(1) - scores[:, 0]
