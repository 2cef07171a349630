"""Cross-entropy of two passes over the same tokens with other dropout, which should agree (R-Drop).

Of the two passes' distributions p and q of a token's next item, "R-Drop: Regularized Dropout for Neural Networks"
(Liang et al., NeurIPS 2021, arXiv 2106.14448) trains::

    (CE(p) + CE(q)) / 2 + alpha (KL(p || q) + KL(q || p)) / 4
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from adrec.nn.losses import add_product, chunk_of_tokens, mend_tiny, raised, scaled_gradients, softmax
from adrec.nn.repeats import Repeats


class ConsistentCrossEntropy(torch.autograd.Function):
    """Cross-entropy against every item and disagreement, the gradient computed at once: only some logits exist."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        item_embedding: Tensor,
        targets: Tensor,
        first: int,
        repeat_bias: Tensor | None,
        repeats: Repeats | None,
        alpha: float,
    ) -> Tensor:
        """Return the sum over the outputs ``x`` [2 N, D] of both passes, the second's behind the first's."""
        embedding = item_embedding[first:].to(x.dtype)  # [C, D]
        precise = torch.promote_types(x.dtype, torch.float32)
        own, log_p = targets[:, None] - first, torch.empty(len(x), 1, dtype=precise, device=x.device)
        trains_embedding = ctx.needs_input_grad[1]
        d_x = torch.empty_like(x)
        d_embedding = torch.zeros_like(item_embedding, dtype=precise) if trains_embedding else None
        d_bias = None if repeat_bias is None else torch.zeros_like(repeat_bias)
        n, apart = len(x) // 2, torch.zeros((), dtype=precise, device=x.device)
        chunk = chunk_of_tokens(4 * len(embedding), n)  # as many are held at once: two passes, and what is between
        rooms = [x.new_empty(chunk, len(embedding)) for _ in range(2)]  # [c, C] each
        for start in range(0, n, chunk):
            end = min(start + chunk, n)
            passes = [slice(start, end), slice(n + start, n + end)]
            pairs = [None if repeats is None else repeats.part(each.start, each.stop) for each in passes]
            logits = []
            for some, room, met in zip(passes, rooms, pairs, strict=True):
                logits.append(torch.mm(x[some], embedding.T, out=room[: end - start]))
                if met is not None and repeat_bias is not None:
                    logits[-1][met[0], met[1] - first] += repeat_bias
            gap = logits[0].to(precise) - logits[1].to(precise)
            both = [softmax(each, own[some], precise) for each, some in zip(logits, passes, strict=True)]
            gradients, divergence = _gradients(both[0][0], both[1][0], gap, alpha / 2)
            apart += divergence
            for some, gradient, (_, log_own), met in zip(passes, gradients, both, pairs, strict=True):
                log_p[some] = log_own
                gradient.scatter_add_(1, own[some], torch.full_like(log_own, -1))
                if met is not None and d_bias is not None:
                    d_bias += gradient[met[0], met[1] - first].sum()
                low = gradient.to(x.dtype)
                torch.mm(low, embedding, out=d_x[some])
                if d_embedding is not None:
                    add_product(d_embedding[first:], low.T, x[some])
        ctx.gradients = d_x, d_embedding, d_bias
        if x.is_cpu:
            mend_tiny(log_p, x, embedding, own, raised(repeats, repeat_bias, first))
        return (alpha / 2 * apart - log_p.sum(dtype=torch.float64)).to(precise)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        """Scale the gradients, in place: they can be asked for once."""
        d_x, d_embedding, d_bias = scaled_gradients(ctx, grad)
        return d_x, d_embedding, None, None, d_bias, None, None


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
) -> Tensor:
    """Mean over tokens of the cross-entropy, and of how far two passes are apart. Its backward pass can run once.

    Args:
        x: outputs of both passes, the second's behind the first's, [2 N, D].
        item_embedding: E, [V + 1, D]; row 0 is padding.
        targets: item numbers, twice, int64 [2 N].
        alpha: the weight of the divergences.
        padding_class: whether row 0 is one of the classes.
        num_tokens: what the sum is divided by: 2 N, or that of the whole batch of which these tokens are a part.
        repeat_bias: is added to the logits of ``repeats``, a number.
        repeats: the items that each token has met, [2 N] tokens.
    """
    first = 0 if padding_class else 1
    total: Tensor = ConsistentCrossEntropy.apply(  # type: ignore[no-untyped-call]
        x, item_embedding, targets, first, repeat_bias, repeats, alpha
    )
    return total / num_tokens


def _gradients(p: Tensor, q: Tensor, gap: Tensor, weight: float) -> tuple[tuple[Tensor, Tensor], Tensor]:
    """Return the gradients of ``p``'s and ``q``'s logits, but for the targets' -1, and the sum of both divergences.

    The divergences are ``sum (p - q) gap``, with ``gap`` [c, C] the first pass's logits less the second's. ``gap`` is
    overwritten.
    """
    of_p = gap * p
    of_q = gap.mul_(q)
    mean_p, mean_q = of_p.sum(1, keepdim=True), of_q.sum(1, keepdim=True)  # [c, 1]
    of_p.mul_(weight).addcmul_(p, 1 + weight - weight * mean_p).sub_(q, alpha=weight)
    of_q.mul_(-weight).addcmul_(q, 1 + weight + weight * mean_q).sub_(p, alpha=weight)
    return (of_p, of_q), (mean_p - mean_q).sum()
