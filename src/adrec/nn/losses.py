"""The two losses of the paper (section 4.4), on packed tokens, and what joins them.

Each is a sum over the tokens of a batch with the denominators of the whole batch, so that the losses, and so the
gradients, of a batch's parts add up to its own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from adrec.data.batch import PackedBatch
from adrec.nn.classes import Classes
from adrec.nn.kernels.catalogue import Asked, CatalogueSoftmax, chunk_of_tokens, scaled_gradients
from adrec.nn.repeats import Repeats


class CatalogueCrossEntropy(torch.autograd.Function):
    """Cross-entropy against every item, its gradient computed at once, so that only some tokens' logits exist."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        item_embedding: Tensor,
        repeat_bias: Tensor | None,
        asked: Asked,
    ) -> Tensor:
        """Return the sum of the tokens' losses; classes are the rows of the embedding from ``first`` on."""
        work = CatalogueSoftmax(ctx, x, item_embedding, repeat_bias, asked)
        chunk = chunk_of_tokens(len(work.classes), len(x))
        (room,) = work.rooms(1, chunk)
        (precise,) = work.precise_rooms([room])
        for start in range(0, len(x), chunk):
            some = slice(start, min(start + chunk, len(x)))
            p = work.softmax(work.logits(some, room), some, precise)
            work.add_gradients(some, p, room)
        return work.finish(ctx).to(work.precise)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        """Scale the gradients, in place: they can be asked for once."""
        d_x, d_embedding, d_bias = scaled_gradients(ctx, grad)
        return d_x, d_embedding, d_bias, None


def cross_entropy(
    x: Tensor,
    item_embedding: Tensor,
    targets: Tensor,
    *,
    padding_class: bool,
    num_tokens: int | None = None,
    repeat_bias: Tensor | None = None,
    repeats: Repeats | None = None,
    offsets: Tensor | None = None,
) -> Tensor:
    """Mean over tokens of the cross-entropy against every item. Its backward pass can run once.

    Args:
        x: outputs, [N, D].
        item_embedding: E, [V + 1, D], row 0 that of padding; or some of its rows, every one a class.
        targets: item numbers, int64 [N].
        padding_class: whether row 0 is one of the classes, padding or not.
        num_tokens: what the sum is divided by: N, or that of the whole batch of which these tokens are a part.
        repeat_bias: is added to the logits of ``repeats``, a number.
        repeats: the items that each token has met.
        offsets: are added to every token's logits, [classes]; they are not trained.
    """
    asked = Asked(targets, 0 if padding_class else 1, repeats, offsets)
    total: Tensor = CatalogueCrossEntropy.apply(x, item_embedding, repeat_bias, asked)  # type: ignore[no-untyped-call]
    return total / (num_tokens or len(x))


def squared_error(x0_hat: Tensor, x0: Tensor, batch: PackedBatch, num_users: int | None = None) -> Tensor:
    """Squared error, the mean over D; the mean over each user's tokens, then over users.

    ``num_users`` is what the sum over users is divided by: B, or that of the whole batch of which this is a part.
    """
    lengths = batch.cu_seqlens.diff()  # [B]
    weights = 1.0 / (lengths * (num_users or batch.num_users))  # [B]
    weights = weights.repeat_interleave(lengths, output_size=len(x0))  # [N]; without its size a GPU is waited for
    return ((x0_hat - x0).square().mean(-1) * weights).sum()


@dataclass(frozen=True)
class Objective:
    """What a batch's losses are divided by, weighted with and computed in.

    Attributes:
        whole: the batch of which a part is trained on, or that batch itself: the parts' losses add up to its own.
        draws: the whole batch's random numbers.
        weights: of each loss that is asked for; empty where a network has but one.
        low: whether the large products are bfloat16's.
        consistency: how much two passes with other dropout are to agree. Where it is not 0, a batch holds its users
            twice: all of them, and behind them all of them again.
        classes: the items that the softmax is over, where it is not the whole catalogue.
    """

    whole: PackedBatch
    draws: Any = None
    weights: Mapping[str, float] = field(default_factory=dict)
    low: bool = False
    consistency: float = 0.0
    classes: Classes | None = None

    @property
    def passes(self) -> int:
        """How often a user of the whole batch is computed."""
        return 2 if self.consistency else 1

    @property
    def num_tokens(self) -> int:
        """N of the whole batch, in all passes."""
        return self.passes * len(self.whole.items)

    @property
    def num_users(self) -> int:
        """B of the whole batch, in all passes."""
        return self.passes * self.whole.num_users

    def query(self, x: Tensor) -> Tensor:
        """Return outputs [.., D] as they are multiplied with the item embedding."""
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
                # No branch: asking for the sign would make the processor wait for a GPU.
                g -= torch.where(product < 0, product / flat[j].square().sum(), 0) * flat[j]
        projected.append(g)
    mean = torch.stack(projected).mean(0)
    sizes = [part.numel() for part in gradients[0]]
    return [part.view_as(like) for part, like in zip(torch.split(mean, sizes), gradients[0], strict=True)]
