"""Cross-entropy of two passes over the same tokens with different dropout, with a penalty on disagreement (R-Drop).

"R-Drop: Regularized Dropout for Neural Networks" (Liang et al., NeurIPS 2021, arXiv 2106.14448) minimises, for the two
passes' distributions p and q of a token's next item::

    (CE(p) + CE(q)) / 2 + consistency (KL(p || q) + KL(q || p)) / 4
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from adrec.nn.kernels.catalogue import CatalogueSoftmax, SoftmaxInputs, scaled_gradients, tokens_per_block


def two_passes(work: CatalogueSoftmax, consistency: float) -> Tensor:
    """Compute the losses and gradients of all tokens, a block of both passes at a time; return the divergences' sum."""
    n, apart = len(work.x) // 2, torch.zeros((), dtype=work.precise, device=work.x.device)
    chunk = tokens_per_block(4 * work.width, n)  # 4 buffers of logits: two passes and intermediates
    logit_buffers = work.logit_buffers(2, chunk)
    precise = work.precise_buffers(logit_buffers)
    between = [torch.empty_like(precise[0]) for _ in range(2)]
    for start in range(0, n, chunk):
        end = min(start + chunk, n)
        passes = [slice(start, end), slice(n + start, n + end)]
        logits = [work.logits(some, buffer) for some, buffer in zip(passes, logit_buffers, strict=True)]
        gap = between[0][: end - start].copy_(logits[0]).sub_(logits[1])
        p, q = (work.softmax(*each) for each in zip(logits, passes, precise, strict=True))
        of_p, of_q, divergence = _gradients(work, p, q, gap, consistency / 2, between[1][: end - start])
        apart += work.counted(divergence, passes[0])
        for some, gradient, buffer in zip(passes, (of_p, of_q), logit_buffers, strict=True):
            work.add_gradients(some, gradient, buffer)
    return apart


class ConsistentCrossEntropy(torch.autograd.Function):
    """Cross-entropy against every item plus the divergence, with an immediate gradient: only some logits exist."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        item_embedding: Tensor,
        repeat_bias: Tensor | None,
        inputs: SoftmaxInputs,
        consistency: float,
    ) -> Tensor:
        """Return the sum over the outputs ``x`` [2 N, D] of both passes, the first pass's rows first."""
        work = CatalogueSoftmax(ctx, x, item_embedding, repeat_bias, inputs)
        apart = two_passes(work, consistency)
        return (work.finish(ctx) + consistency / 2 * apart).to(work.precise)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        """Scale the gradients in place; can run once."""
        d_x, d_embedding, d_bias = scaled_gradients(ctx, grad)
        return d_x, d_embedding, d_bias, None, None


def plain_consistent_cross_entropy(
    x: Tensor, item_embedding: Tensor, targets: Tensor, consistency: float, padding_class: bool = False
) -> Tensor:
    """Return the same mean over the tokens of both passes, from a plain reference implementation."""
    first, n = 0 if padding_class else 1, len(x) // 2
    log_p = torch.log_softmax(x @ item_embedding[first:].T, 1)  # [2 N, C]
    entropy = F.nll_loss(log_p, targets - first)
    divergence = ((log_p[:n].exp() - log_p[n:].exp()) * (log_p[:n] - log_p[n:])).sum() / (2 * n)
    return entropy + consistency / 2 * divergence


def _gradients(
    work: CatalogueSoftmax, p: Tensor, q: Tensor, gap: Tensor, weight: float, buffer: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the gradients of the logits of ``p`` and ``q``, without the targets' -1, and both divergences' sum [c, 1].

    A token's divergences are ``sum (p - q) gap``, with ``gap`` [c, C] the first pass's logits minus the second's. The
    gradients are written to ``buffer`` and ``gap``.
    """
    of_p = torch.mul(gap, p, out=buffer)
    of_q = gap.mul_(q)
    mean_p, mean_q = (work.total(each.sum(1, keepdim=True)) for each in (of_p, of_q))  # [c, 1]
    of_p.mul_(weight).addcmul_(p, 1 + weight - weight * mean_p).sub_(q, alpha=weight)
    of_q.mul_(-weight).addcmul_(q, 1 + weight + weight * mean_q).sub_(p, alpha=weight)
    return of_p, of_q, mean_p - mean_q
