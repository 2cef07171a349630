"""The two losses of the paper (section 4.4) on packed tokens, and their combination.

Each loss is a sum over the tokens of a batch with the denominators of the whole batch. The losses, and so the
gradients, of a batch's parts therefore add up to those of the batch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from adrec.data.batch import PackedBatch
from adrec.nn.classes import Classes
from adrec.nn.kernels.buckets import Buckets
from adrec.nn.rows import Rows


def squared_error(
    x0_hat: Tensor, x0: Tensor, batch: PackedBatch, num_users: int | None = None, mean_weight: float = 1.0
) -> Tensor:
    """Squared error: the mean over D, then over each user's tokens, then over users.

    Args:
        x0_hat: the denoised targets, [N, D].
        x0: the targets, [N, D].
        batch: the tokens.
        num_users: the denominator of the mean over users: B, or that of the whole batch if this is a part of one.
        mean_weight: the mean weight of the targets of the whole batch, which theirs are relative to.
    """
    lengths = batch.cu_seqlens.diff()  # [B]
    weights = 1.0 / (lengths * (num_users or batch.num_users))  # [B]
    weights = weights.repeat_interleave(lengths, output_size=len(x0))  # [N]; without its size a GPU would block
    if batch.weights is not None:
        weights = weights * batch.weights / mean_weight
    return ((x0_hat - x0).square().mean(-1) * weights).sum()


@dataclass(frozen=True)
class Objective:
    """The denominators, weights and precision of a batch's losses.

    Attributes:
        whole: the batch of which a part is trained on, or that batch itself: the parts' losses add up to its own.
        draws: the whole batch's random numbers.
        weights: the weight of each requested loss; empty if a network has only one.
        low: whether the large products are in bfloat16.
        consistency: the weight of the divergence of two passes with different dropout. If it is not 0, a batch holds
            its users twice: all of them, then all of them again.
        classes: the classes of a sampled softmax; None for the whole catalogue.
        rows: the rows of the item embedding that the step has; None for all. The classes are then these rows.
        beta: of the generalised binary cross-entropy over the rows; None for the softmax.
        buckets: the buckets of a scalable cross-entropy; None for one softmax.
        future_items: the number of next items that are targets of a token (:mod:`adrec.nn.future`).
        future_decay: the weight of each, relative to the one before.
        shard: this rank's items, if the catalogue is divided among several processes; None if it is not.
    """

    whole: PackedBatch
    draws: Any = None
    weights: Mapping[str, float] = field(default_factory=dict)
    low: bool = False
    consistency: float = 0.0
    classes: Classes | None = None
    rows: Rows | None = None
    beta: float | None = None
    buckets: Buckets | None = None
    future_items: int = 1
    future_decay: float = 1.0
    shard: Any = None  # :class:`adrec.nn.kernels.sharded.Shard`

    @property
    def passes(self) -> int:
        """The number of passes over each user of the whole batch."""
        return 2 if self.consistency else 1

    @property
    def num_tokens(self) -> int:
        """N of the whole batch, in all passes."""
        return self.passes * len(self.whole.items)

    @property
    def total_weight(self) -> float:
        """The sum of the weights of all targets of the whole batch, in all passes: N if all count the same."""
        weights = self.whole.weights
        return self.num_tokens if weights is None else self.passes * float(weights.sum()) or 1.0

    def mean(self, losses: Tensor, part: PackedBatch) -> Tensor:
        """Return the share of ``part``, with the tokens' losses [N], in the weighted mean of the whole batch."""
        return (losses if part.weights is None else losses * part.weights).sum() / self.total_weight

    @property
    def num_users(self) -> int:
        """B of the whole batch, in all passes."""
        return self.passes * self.whole.num_users

    def query(self, x: Tensor) -> Tensor:
        """Return outputs [.., D] in the precision of the product with the item embedding."""
        return x.bfloat16() if self.low else x


def project_conflicts(gradients: Sequence[Sequence[Tensor]], order: Sequence[int] = (0, 1)) -> list[Tensor]:
    """PCGrad (Yu et al. 2020, algorithm 1): the mean of the tasks' gradients, each without its conflicting part.

    A gradient g_i whose product with another task's g_j is negative loses its component along g_j. All parameters
    of a task form one vector.
    """
    flat = [torch.cat([part.flatten() for part in task]) for task in gradients]
    projected = []
    for i in order:
        g = flat[i].clone()
        for j in order:
            if j != i:
                product = g @ flat[j]
                # No branch: reading the sign would synchronise with the GPU.
                g -= torch.where(product < 0, product / flat[j].square().sum(), 0) * flat[j]
        projected.append(g)
    mean = torch.stack(projected).mean(0)
    sizes = [part.numel() for part in gradients[0]]
    return [part.view_as(like) for part, like in zip(torch.split(mean, sizes), gradients[0], strict=True)]
