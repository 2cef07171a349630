"""Cross-entropy of two passes over the same tokens with other dropout, which should agree (R-Drop).

Of the two passes' distributions p and q of a token's next item, "R-Drop: Regularized Dropout for Neural Networks"
(Liang et al., NeurIPS 2021, arXiv 2106.14448) trains::

    (CE(p) + CE(q)) / 2 + alpha (KL(p || q) + KL(q || p)) / 4
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from adrec.nn.kernels.catalogue import Asked, CatalogueSoftmax, chunk_of_tokens, scaled_gradients
from adrec.nn.repeats import Repeats


class ConsistentCrossEntropy(torch.autograd.Function):
    """Cross-entropy against every item and disagreement, the gradient computed at once: only some logits exist."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        item_embedding: Tensor,
        repeat_bias: Tensor | None,
        asked: Asked,
        alpha: float,
    ) -> Tensor:
        """Return the sum over the outputs ``x`` [2 N, D] of both passes, the second's behind the first's."""
        work = CatalogueSoftmax(ctx, x, item_embedding, repeat_bias, asked)
        n, apart = len(x) // 2, torch.zeros((), dtype=work.precise, device=x.device)
        chunk = chunk_of_tokens(4 * len(work.classes), n)  # as many are held at once: two passes, and what is between
        rooms = work.rooms(2, chunk)
        precise = work.precise_rooms(rooms)
        between = [torch.empty_like(precise[0]) for _ in range(2)]
        for start in range(0, n, chunk):
            end = min(start + chunk, n)
            passes = [slice(start, end), slice(n + start, n + end)]
            logits = [work.logits(some, room) for some, room in zip(passes, rooms, strict=True)]
            gap = between[0][: end - start].copy_(logits[0]).sub_(logits[1])
            p, q = (work.softmax(*each) for each in zip(logits, passes, precise, strict=True))
            of_p, of_q, divergence = _gradients(p, q, gap, alpha / 2, between[1][: end - start])
            apart += divergence
            for some, gradient, room in zip(passes, (of_p, of_q), rooms, strict=True):
                work.add_gradients(some, gradient, room)
        return (work.finish(ctx) + alpha / 2 * apart).to(work.precise)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        """Scale the gradients, in place: they can be asked for once."""
        d_x, d_embedding, d_bias = scaled_gradients(ctx, grad)
        return d_x, d_embedding, d_bias, None, None


def consistent_cross_entropy(
    x: Tensor,
    item_embedding: Tensor,
    targets: Tensor,
    *,
    alpha: float,
    padding_class: bool,
    num_tokens: int,
    repeat_bias: Tensor | None = None,
    repeats: Repeats | None = None,
    offsets: Tensor | None = None,
) -> Tensor:
    """Mean over tokens of the cross-entropy, and of how far two passes are apart. Its backward pass can run once.

    Args:
        x: outputs of both passes, the second's behind the first's, [2 N, D].
        item_embedding: E, [V + 1, D], row 0 that of padding; or some of its rows, every one a class.
        targets: item numbers, twice, int64 [2 N].
        alpha: the weight of the divergences.
        padding_class: whether row 0 is one of the classes, padding or not.
        num_tokens: what the sum is divided by: 2 N, or that of the whole batch of which these tokens are a part.
        repeat_bias: is added to the logits of ``repeats``, a number.
        repeats: the items that each token has met, [2 N] tokens.
        offsets: are added to every token's logits, [classes]; they are not trained.
    """
    asked = Asked(targets, 0 if padding_class else 1, repeats, offsets)
    total: Tensor = ConsistentCrossEntropy.apply(  # type: ignore[no-untyped-call]
        x, item_embedding, repeat_bias, asked, alpha
    )
    return total / num_tokens


def _gradients(p: Tensor, q: Tensor, gap: Tensor, weight: float, room: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return the gradients of ``p``'s and ``q``'s logits, but for the targets' -1, and the sum of both divergences.

    The divergences are ``sum (p - q) gap``, with ``gap`` [c, C] the first pass's logits less the second's. The
    gradients are computed in ``room`` and in ``gap``.
    """
    of_p = torch.mul(gap, p, out=room)
    of_q = gap.mul_(q)
    mean_p, mean_q = of_p.sum(1, keepdim=True), of_q.sum(1, keepdim=True)  # [c, 1]
    of_p.mul_(weight).addcmul_(p, 1 + weight - weight * mean_p).sub_(q, alpha=weight)
    of_q.mul_(-weight).addcmul_(q, 1 + weight + weight * mean_q).sub_(p, alpha=weight)
    return of_p, of_q, (mean_p - mean_q).sum()
