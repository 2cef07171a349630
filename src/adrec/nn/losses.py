"""The two losses of the paper (section 4.4), on packed tokens, and what joins them."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn import LinearCrossEntropyOptions

from adrec.data.batch import PackedBatch


def cross_entropy(
    x: Tensor, item_embedding: Tensor, targets: Tensor, *, padding_class: bool, chunked: bool = True
) -> Tensor:
    """Mean over tokens of the cross-entropy against the whole catalogue.

    Args:
        x: outputs, [N, D].
        item_embedding: E, [V + 1, D]; row 0 is padding.
        targets: item numbers, int64 [N].
        padding_class: whether row 0 is one of the classes.
        chunked: never hold all logits [N, V]: faster, and exact; its backward pass can run once only.
    """
    options = LinearCrossEntropyOptions() if chunked else None
    if padding_class:
        return F.linear_cross_entropy(x, item_embedding, targets, options=options)
    return F.linear_cross_entropy(x, item_embedding[1:], targets - 1, options=options)


def squared_error(x0_hat: Tensor, x0: Tensor, batch: PackedBatch) -> Tensor:
    """Squared error, the mean over D; the mean over each user's tokens, then over users."""
    lengths = batch.cu_seqlens.diff()  # [B]
    weights = (1.0 / (lengths * batch.num_users)).repeat_interleave(lengths)  # [N]
    return ((x0_hat - x0).square().mean(-1) * weights).sum()


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
            product = g @ flat[j]
            if j != i and product < 0:
                g -= product / flat[j].square().sum() * flat[j]
        projected.append(g)
    mean = torch.stack(projected).mean(0)
    sizes = [part.numel() for part in gradients[0]]
    return [part.view_as(like) for part, like in zip(torch.split(mean, sizes), gradients[0], strict=True)]
