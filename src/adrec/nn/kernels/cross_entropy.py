"""Cross-entropy against the whole catalogue in blocks of tokens, for one pass or for two (R-Drop)."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from adrec.nn.kernels.catalogue import CatalogueSoftmax, SoftmaxInputs, scaled_gradients, tokens_per_block
from adrec.nn.kernels.consistency import ConsistentCrossEntropy
from adrec.nn.repeats import Repeats


def one_pass(work: CatalogueSoftmax) -> float:
    """Compute the losses and gradients of all tokens, a block at a time; nothing is added to the losses: 0."""
    count = len(work.x)
    chunk = tokens_per_block(work.width, count)
    (buffer,) = work.logit_buffers(1, chunk)
    (precise,) = work.precise_buffers([buffer])
    for start in range(0, count, chunk):
        some = slice(start, min(start + chunk, count))
        p = work.softmax(work.logits(some, buffer), some, precise)
        work.add_gradients(some, p, buffer)
    return 0.0


class CatalogueCrossEntropy(torch.autograd.Function):
    """Cross-entropy against every item, with an immediate gradient: only one block's logits exist at a time."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        item_embedding: Tensor,
        repeat_bias: Tensor | None,
        inputs: SoftmaxInputs,
    ) -> Tensor:
        """Return the sum of the tokens' losses; the classes are the embedding rows from ``first`` on."""
        work = CatalogueSoftmax(ctx, x, item_embedding, repeat_bias, inputs)
        one_pass(work)
        return work.finish(ctx).to(work.precise)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        """Scale the gradients in place; can run once."""
        d_x, d_embedding, d_bias = scaled_gradients(ctx, grad)
        return d_x, d_embedding, d_bias, None


def cross_entropy(
    x: Tensor,
    item_embedding: Tensor,
    targets: Tensor,
    *,
    padding_class: bool,
    total: float | None = None,
    weights: Tensor | None = None,
    consistency: float = 0.0,
    repeat_bias: Tensor | None = None,
    repeats: Repeats | None = None,
    offsets: Tensor | None = None,
) -> Tensor:
    """Return the mean over tokens of the cross-entropy against every item. Its backward pass can run once.

    With ``consistency`` the tokens are those of two passes with different dropout, the first pass's tokens first. The
    divergence of their predictions is added (:mod:`adrec.nn.kernels.consistency`).

    Args:
        x: outputs, [N, D].
        item_embedding: E, [V + 1, D], row 0 is padding; or a subset of its rows, all of them classes.
        targets: item numbers, int64 [N].
        padding_class: whether row 0 is a class, whether or not it is padding.
        total: the denominator of the mean: N, or that of the whole batch if these tokens are part of one.
        weights: the weight of each token, [N]; None if all count the same.
        consistency: the weight of the divergence.
        repeat_bias: the number added to the logits of ``repeats``, [] or one for each pair, [P].
        repeats: the items seen so far by each token.
        offsets: the numbers added to every token's logits, [classes]; they are not trained.
    """
    inputs = SoftmaxInputs(targets, 0 if padding_class else 1, repeats, offsets, weights)
    if consistency:
        loss = ConsistentCrossEntropy.apply(x, item_embedding, repeat_bias, inputs, consistency)  # type: ignore[no-untyped-call]
    else:
        loss = CatalogueCrossEntropy.apply(x, item_embedding, repeat_bias, inputs)  # type: ignore[no-untyped-call]
    mean: Tensor = loss / (total or len(x))
    return mean


def plain_cross_entropy(x: Tensor, item_embedding: Tensor, targets: Tensor, padding_class: bool = False) -> Tensor:
    """Return :func:`cross_entropy` for one pass without repeats, from a plain reference implementation."""
    first = 0 if padding_class else 1
    return F.cross_entropy(x @ item_embedding[first:].T, targets - first)
