"""Softmax over the whole catalogue in blocks of tokens: the shared part of the losses that rank every item.

The gradients are computed together with the loss, so that only one block of logits exists at a time.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from adrec.nn.repeats import Repeats

LOGITS = 1 << 24  # the maximum number of logits in memory: 64 MiB of float32
TINY = math.log(1e-30)
FEWEST_TOKENS = 64  # in a block: with fewer, accumulating the item embedding's gradient costs more than the product


def tokens_per_block(num_classes: int, num_tokens: int) -> int:
    """Return the number of tokens in a block."""
    return min(max(FEWEST_TOKENS, min(1024, LOGITS // num_classes)), num_tokens)


@dataclass(frozen=True)
class SoftmaxInputs:
    """The inputs of a softmax that are not trained.

    Attributes:
        targets: the embedding rows of the targets, int64 [N].
        first: the first embedding row that is a class.
        repeats: the embedding rows of the items seen so far by each token; the repeat bias is added to their logits.
        offsets: the numbers added to every token's logits, [C].
        weights: the weight of each token's loss, [N]; None if all count the same.
    """

    targets: Tensor
    first: int
    repeats: Repeats | None
    offsets: Tensor | None
    weights: Tensor | None


class CatalogueSoftmax:
    """The logits, probabilities and gradients of some outputs ``x`` [N, D], for an autograd function's forward pass.

    Attributes:
        classes: the embedding rows of the items, from ``first`` on, [C, D].
        precise: the dtype of probabilities and sums: float32 if the products are in a lower precision.
    """

    def __init__(
        self, ctx: Any, x: Tensor, item_embedding: Tensor, repeat_bias: Tensor | None, inputs: SoftmaxInputs
    ) -> None:
        """``ctx`` tells which of its first inputs, ``x`` and ``item_embedding``, need a gradient."""
        self.x, self.first, self.bias, self.repeats = x, inputs.first, repeat_bias, inputs.repeats
        self.offsets = inputs.offsets  # [C], not rounded: a rounding error would be the same in every sum
        self.classes = item_embedding[self.first :].to(x.dtype)  # [C, D]
        self.precise = torch.promote_types(x.dtype, torch.float32)
        self.own = inputs.targets[:, None] - self.first  # [N, 1]
        self.weights = None if inputs.weights is None else inputs.weights[:, None].to(self.precise)  # [N, 1]
        self.log_p = torch.empty(len(x), 1, dtype=self.precise, device=x.device)  # of the targets
        of_x, of_embedding = ctx.needs_input_grad[:2]
        self.d_x = torch.empty_like(x) if of_x else None
        self.d_embedding = torch.zeros_like(item_embedding, dtype=self.precise) if of_embedding else None
        self.d_bias = None if repeat_bias is None else torch.zeros_like(repeat_bias)  # [] or [P], as the bias

    def logit_buffers(self, number: int, chunk: int) -> list[Tensor]:
        """Return ``number`` buffers for logits, in ``x``'s precision, [chunk, C].

        All blocks share these buffers: allocating new memory would take as long as a product.
        """
        return [self.x.new_empty(chunk, len(self.classes)) for _ in range(number)]

    def precise_buffers(self, buffers: list[Tensor]) -> list[Tensor]:
        """Return buffers of the same shape in the precision of sums: the given ones if they already have it."""
        return (
            buffers
            if self.x.dtype == self.precise
            else [torch.empty_like(each, dtype=self.precise) for each in buffers]
        )

    def logits(self, some: slice, buffer: Tensor) -> Tensor:
        """Return the logits of a block of tokens, [c, C], in ``buffer``, with the repeat bias added.

        Offsets are the same for every token; they are added in :meth:`softmax`.
        """
        logits = torch.mm(self.x[some], self.classes.T, out=buffer[: some.stop - some.start])
        if self.repeats is not None and self.bias is not None:
            rows, items = self.repeats.part(some.start, some.stop)
            bias = self.bias[self.repeats.pairs(some)] if self.bias.dim() else self.bias
            logits[rows, items - self.first] += bias.to(logits.dtype)  # each pair once
        return logits

    def softmax(self, logits: Tensor, some: slice, buffer: Tensor) -> Tensor:
        """Return the probabilities p [c, C] of all classes in ``buffer``, and store ``log p`` of the targets."""
        own, p = self.own[some], buffer[: len(logits)]
        if self.offsets is not None:
            logits = torch.add(logits, self.offsets, out=p)
        if logits.is_cpu:  # recomputing the few logits with a tiny p is faster than the exponential of all log p
            torch.softmax(logits, 1, dtype=self.precise, out=p)
            self.log_p[some] = p.gather(1, own).log_()
        else:
            torch.log_softmax(logits, 1, dtype=self.precise, out=p)
            self.log_p[some] = p.gather(1, own)
            p.exp_()
        return p

    def add_gradients(self, some: slice, gradient: Tensor, buffer: Tensor) -> None:
        """Accumulate a block's gradients.

        ``gradient`` [c, C] is the gradient of its logits, without the targets' -1; it is overwritten.
        """
        own = self.own[some]
        gradient.scatter_add_(1, own, self.minus_one(some))
        if self.weights is not None:
            gradient.mul_(self.weights[some])
        if self.repeats is not None and self.d_bias is not None:
            rows, items = self.repeats.part(some.start, some.stop)
            of_pairs = gradient[rows, items - self.first]
            if self.d_bias.dim():
                self.d_bias[self.repeats.pairs(some)] = of_pairs
            else:
                self.d_bias += of_pairs.sum()
        low = gradient if gradient.dtype == self.x.dtype else buffer[: len(gradient)].copy_(gradient)
        if self.d_x is not None:
            torch.mm(low, self.classes, out=self.d_x[some])
        if self.d_embedding is not None:
            total = self.d_embedding[self.first :]
            if low.dtype == total.dtype:
                total.addmm_(low.T, self.x[some])
            else:
                total += low.T @ self.x[some]

    @property
    def width(self) -> int:
        """The number of classes that decides how many tokens are in a block."""
        return len(self.classes)

    def minus_one(self, some: slice) -> Tensor:
        """Return what the targets' gradients lose, [c, 1]."""
        return torch.full_like(self.log_p[some], -1)

    def total(self, values: Tensor) -> Tensor:
        """Return sums over some of the classes as sums over all of them."""
        return values

    def counted(self, losses: Tensor, some: slice) -> Tensor:
        """Return the weighted sum of the losses of some tokens, [c, 1], that count here."""
        return self.weighted(losses, some).sum()

    def finish(self, ctx: Any) -> Tensor:
        """Store the gradients in ``ctx``, and return the weighted sum of the cross-entropies, a float64 scalar."""
        ctx.gradients = self.d_x, self.d_embedding, self.d_bias
        if self.x.is_cpu:
            self._mend_tiny()
        return -self.weighted(self.log_p, slice(None)).sum(dtype=torch.float64)

    def weighted(self, losses: Tensor, some: slice) -> Tensor:
        """Return the losses of some tokens, [c, 1], times the tokens' weights."""
        return losses if self.weights is None else losses * self.weights[some]

    def _mend_tiny(self) -> None:
        """Recompute ``log p`` from the logits if p is near the smallest float32; on the CPU only.

        Finding such p would synchronise with a GPU.
        """
        tiny = (self.log_p < TINY)[:, 0]
        if not tiny.any():
            return
        logits = (self.x[tiny] @ self.classes.T).to(self.precise)
        if self.offsets is not None:
            logits += self.offsets
        if self.repeats is not None and self.bias is not None:
            pairs = tiny[self.repeats.rows]
            positions = tiny.cumsum(0)[self.repeats.rows[pairs]] - 1
            logits[positions, self.repeats.items[pairs] - self.first] += (
                self.bias[pairs] if self.bias.dim() else self.bias
            )
        self.log_p[tiny] = logits.gather(1, self.own[tiny]) - logits.logsumexp(1, keepdim=True)


def scaled_gradients(ctx: Any, grad: Tensor) -> list[Tensor | None]:
    """Return the gradients stored in ``ctx``, multiplied by ``grad`` in place; can be called once."""
    if ctx.gradients is None:
        raise RuntimeError("the cross-entropy's gradient is kept for one backward pass only.")
    gradients, ctx.gradients = ctx.gradients, None
    return [None if each is None else each.mul_(grad) for each in gradients]
