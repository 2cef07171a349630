"""Scores of some items for each output, as an autograd function and in the plain way."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

DENSE = 32  # up to this many catalogue items per requested item, computing all scores is faster
PRODUCTS = 1 << 20  # gathered numbers, or scores, in memory at once: 4 MiB of float32, which fits a CPU cache


def some_scores(x: Tensor, item_embedding: Tensor, items: Tensor) -> Tensor:
    """Return the score of each of ``items`` [N, m] with the outputs ``x`` [N, D], [N, m]."""
    scores: Tensor = SomeScores.apply(x, item_embedding, items)  # type: ignore[no-untyped-call]
    return scores


def plain_some_scores(x: Tensor, item_embedding: Tensor, items: Tensor) -> Tensor:
    """Return :func:`some_scores` from a plain reference implementation."""
    return (x[:, None] * item_embedding[items]).sum(-1)


class SomeScores(torch.autograd.Function):
    """The inner products of each output with some items: by one full matrix product or by a gather, if faster."""

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
    """Divide the tokens into chunks that bound the memory in use at once."""
    each = len(embedding) if dense else items.shape[1] * embedding.shape[1]
    size = max(16, (4 if dense else 1) * PRODUCTS // each)
    return [slice(start, start + size) for start in range(0, len(items), size)]
