"""Cross-entropy against a catalogue whose item vectors are divided among several processes (vocabulary-parallel).

Every rank computes the logits of all ranks' tokens for its own items. The softmax's maximum and sum, the target's
logit and the gradients of the outputs are combined over the ranks, so no rank has all logits or all item vectors
(Shoeybi et al. 2019, "Megatron-LM", arXiv 1909.08053, section 3).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from adrec.data.batch import PackedBatch
from adrec.data.spans import Int64s
from adrec.nn.kernels.catalogue import CatalogueSoftmax, SoftmaxInputs, scaled_gradients
from adrec.nn.kernels.consistency import two_passes
from adrec.nn.kernels.cross_entropy import one_pass
from adrec.nn.ranks import Partition
from adrec.nn.repeats import Repeats


@dataclass(frozen=True)
class Shard:
    """One rank's items, and the tokens of all ranks, in a training step.

    Attributes:
        partition: the items of each rank.
        weight: this rank's item vectors, [rows, D].
        users: the users of the whole batch that each rank computes.
        whole: the whole batch, with the items' numbers in the catalogue.
        some_idle: whether a rank has no users of its own; it computes a user of another, with weight 0.
    """

    partition: Partition
    weight: Tensor
    users: tuple[Int64s, ...]
    whole: PackedBatch
    some_idle: bool = False

    def tokens(self) -> list[int]:
        """Return the number of tokens of each rank, in one pass."""
        return [int(self.whole.lengths[users].sum()) for users in self.users]

    def gathered(self, values: Tensor, passes: int) -> Tensor:
        """Return the values of all ranks' tokens, [passes n, ..]: all of the first pass, then all of the second."""
        counts = self.tokens()
        own = values.view(passes, -1, *values.shape[1:])  # [passes, own tokens, ..]
        room = [0, 0] * (values.dim() - 1) + [0, max(counts) - own.shape[1]]
        found = self.partition.ranks.gathered(F.pad(own, room))
        parts = [each[:, :count] for each, count in zip(found, counts, strict=True)]
        return torch.cat(parts, 1).flatten(0, 1)

    def own(self, passes: int) -> Tensor:
        """Return the indices of this rank's tokens among the gathered ones, int64."""
        counts = self.tokens()
        first, rank = sum(counts[: self.partition.ranks.rank]), self.partition.ranks.rank
        one = torch.arange(first, first + counts[rank], device=self.weight.device)
        return torch.cat([one + number * sum(counts) for number in range(passes)])

    def batch(self, passes: int) -> PackedBatch:
        """Return the tokens of all ranks as a batch, in the order of :meth:`gathered`."""
        return self.whole.select(np.tile(np.concatenate(self.users), passes))[0]

    def repeats(self, batch: PackedBatch) -> Repeats:
        """Return the pairs of the gathered tokens with this rank's items."""
        every = Repeats.of_tokens(batch)
        here = self.partition.owned(every.items)
        kept = here.nonzero()[:, 0]
        before = np.concatenate([[0], np.cumsum(here.cpu().numpy())])
        return Repeats(every.rows[kept], self.partition.local(every.items[kept]), before[every.starts])


class ShardSoftmax(CatalogueSoftmax):
    """The logits, probabilities and gradients of all ranks' outputs for this rank's items."""

    def __init__(
        self,
        ctx: Any,
        x: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        inputs: SoftmaxInputs,
        shard: Shard,
        passes: int,
    ) -> None:
        super().__init__(ctx, x, weight, bias, inputs)
        self.ranks, self.here = shard.partition.ranks, inputs.targets[:, None] >= 0  # [N, 1]
        self.own, self.most = self.own.clamp(min=0), shard.partition.count(0) + 1
        self.mine = torch.zeros(len(x), 1, device=x.device)
        self.mine[shard.own(passes)] = 1.0

    @property
    def width(self) -> int:
        """The same on all ranks, so that they have the same blocks."""
        return self.most

    def total(self, values: Tensor) -> Tensor:
        """Return the sum over the ranks."""
        return self.ranks.total(values)

    def minus_one(self, some: slice) -> Tensor:
        """Return what the targets' gradients lose: 1, where the target is this rank's."""
        return -self.here[some].to(self.precise)

    def counted(self, losses: Tensor, some: slice) -> Tensor:
        """Return the weighted sum of the losses of those tokens that are this rank's."""
        return (self.weighted(losses, some) * self.mine[some]).sum()

    def softmax(self, logits: Tensor, some: slice, buffer: Tensor) -> Tensor:
        """Return the probabilities of this rank's items, [c, C], and store ``log p`` of the targets that it has."""
        p = buffer[: len(logits)]
        p.copy_(logits)
        highest = self.ranks.most(p.amax(1, keepdim=True))
        p.sub_(highest)
        target = p.gather(1, self.own[some])
        total = self.total(p.exp_().sum(1, keepdim=True))
        self.log_p[some] = torch.where(self.here[some], target - total.log(), 0.0)
        return p.div_(total)

    def finish(self, ctx: Any) -> Tensor:
        """Store the gradients in ``ctx``, and return the weighted sum of this rank's cross-entropies."""
        log_p = self.total(self.log_p)
        if self.d_x is not None:
            self.total(self.d_x)
        ctx.gradients = self.d_x, self.d_embedding, self.d_bias
        return -self.counted(log_p, slice(None)).to(torch.float64)


class ShardedCrossEntropy(torch.autograd.Function):
    """Cross-entropy of this rank's tokens, with the gradient of all ranks' tokens for this rank's items."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        inputs: SoftmaxInputs,
        shard: Shard,
        consistency: float,
    ) -> Tensor:
        """Return the sum over this rank's outputs ``x``; ``inputs`` are those of all ranks' tokens."""
        passes = 2 if consistency else 1
        work = ShardSoftmax(ctx, shard.gathered(x, passes), weight, bias, inputs, shard, passes)
        apart = two_passes(work, consistency) if consistency else one_pass(work)
        loss = (work.finish(ctx) + consistency / 2 * apart).to(work.precise)
        d_x, d_weight, d_bias = ctx.gradients
        ctx.gradients = None if d_x is None else d_x[shard.own(passes)], d_weight, d_bias
        return loss

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        """Scale the gradients in place; can run once."""
        d_x, d_weight, d_bias = scaled_gradients(ctx, grad)
        return d_x, d_weight, d_bias, None, None, None


def sharded_cross_entropy(
    x: Tensor,
    shard: Shard,
    weights: Tensor | None,
    *,
    padding_class: bool,
    consistency: float,
    repeat_bias: Tensor | None,
) -> Tensor:
    """Return the sum of the cross-entropies of this rank's tokens; the gradients are those of all ranks' tokens.

    Args:
        x: the outputs of this rank's tokens, [own tokens, D], in each pass.
        shard: this rank's items, and the tokens of all.
        weights: the weight of each of this rank's tokens; None if all count the same.
        padding_class: whether row 0 is a class.
        consistency: the weight of the divergence of two passes.
        repeat_bias: the number added to the logits of items of the history, []; None without.
    """
    passes, partition = 2 if consistency else 1, shard.partition
    batch = shard.batch(passes)
    targets = torch.where(partition.owned(batch.targets), partition.local(batch.targets), -1)
    first = 0 if padding_class and partition.ranks.leads else 1
    if weights is None and shard.some_idle:  # those have weights, of 0
        weights = x.new_ones(len(x), dtype=torch.float32)
    weights = None if weights is None else shard.gathered(weights, passes)
    repeats = None if repeat_bias is None else shard.repeats(batch)
    inputs = SoftmaxInputs(targets, first, repeats, None, weights)
    loss: Tensor = ShardedCrossEntropy.apply(x, shard.weight, repeat_bias, inputs, shard, consistency)  # type: ignore[no-untyped-call]
    return loss
