"""Softmax over the whole catalogue, a block of tokens at a time: what the losses that rank every item share.

The gradients are computed with the loss, as only then no more than a block of logits need ever exist.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from adrec.nn.repeats import Repeats

LOGITS = 1 << 24  # the most logits that are held at once: 64 MiB of float32
TINY = math.log(1e-30)
FEWEST_TOKENS = 64  # at a time: with fewer, adding to the item embedding's gradient costs more than the product


def tokens_per_block(num_classes: int, num_tokens: int) -> int:
    """Return how many of some tokens have their logits computed at a time."""
    return min(max(FEWEST_TOKENS, min(1024, LOGITS // num_classes)), num_tokens)


@dataclass(frozen=True)
class SoftmaxInputs:
    """The inputs of a softmax that are not trained.

    Attributes:
        targets: the rows of the embedding that are right, int64 [N].
        first: the row of the embedding from which on they are classes.
        repeats: the items that each token has met, as rows; the bias of repeats is added to their logits.
        offsets: are added to every token's logits, [C].
    """

    targets: Tensor
    first: int
    repeats: Repeats | None
    offsets: Tensor | None


class CatalogueSoftmax:
    """The logits, probabilities and gradients of some outputs ``x`` [N, D], for an autograd function's forward pass.

    Attributes:
        classes: the items' rows of the embedding, from ``first`` on, [C, D].
        precise: what probabilities and sums are computed in: float32, where the products are in less.
    """

    def __init__(
        self, ctx: Any, x: Tensor, item_embedding: Tensor, repeat_bias: Tensor | None, inputs: SoftmaxInputs
    ) -> None:
        """``ctx`` is to say of ``x`` and ``item_embedding``, its first inputs, which need a gradient."""
        self.x, self.first, self.bias, self.repeats = x, inputs.first, repeat_bias, inputs.repeats
        self.offsets = inputs.offsets  # [C], precise: their rounding would be the same error in every sum
        self.classes = item_embedding[self.first :].to(x.dtype)  # [C, D]
        self.precise = torch.promote_types(x.dtype, torch.float32)
        self.own = inputs.targets[:, None] - self.first  # [N, 1]
        self.log_p = torch.empty(len(x), 1, dtype=self.precise, device=x.device)  # of the targets
        of_x, of_embedding = ctx.needs_input_grad[:2]
        self.d_x = torch.empty_like(x) if of_x else None
        self.d_embedding = torch.zeros_like(item_embedding, dtype=self.precise) if of_embedding else None
        self.d_bias = None if repeat_bias is None else torch.zeros_like(repeat_bias)

    def logit_buffers(self, number: int, chunk: int) -> list[Tensor]:
        """Return ``number`` buffers for logits, in ``x``'s precision, [chunk, C].

        Every block is computed in the same buffers: allocating new memory would take as long as a product.
        """
        return [self.x.new_empty(chunk, len(self.classes)) for _ in range(number)]

    def precise_buffers(self, buffers: list[Tensor]) -> list[Tensor]:
        """Return buffers of the same shape in the precision of sums: these themselves, where they have it."""
        return (
            buffers
            if self.x.dtype == self.precise
            else [torch.empty_like(each, dtype=self.precise) for each in buffers]
        )

    def logits(self, some: slice, buffer: Tensor) -> Tensor:
        """Return the logits of a block of the tokens, [c, C], in ``buffer``, with the bias of what each has met.

        Offsets are added where the softmax is computed, as they are the same for every token.
        """
        logits = torch.mm(self.x[some], self.classes.T, out=buffer[: some.stop - some.start])
        if self.repeats is not None and self.bias is not None:
            rows, items = self.repeats.part(some.start, some.stop)
            logits[rows, items - self.first] += self.bias  # each pair once
        return logits

    def softmax(self, logits: Tensor, some: slice, buffer: Tensor) -> Tensor:
        """Return all classes' probabilities p [c, C] in ``buffer``, and keep ``log p`` of the targets."""
        own, p = self.own[some], buffer[: len(logits)]
        if self.offsets is not None:
            logits = torch.add(logits, self.offsets, out=p)
        if logits.is_cpu:  # the exponential of all log p takes longer than some more logits, where p is tiny
            torch.softmax(logits, 1, dtype=self.precise, out=p)
            self.log_p[some] = p.gather(1, own).log_()
        else:
            torch.log_softmax(logits, 1, dtype=self.precise, out=p)
            self.log_p[some] = p.gather(1, own)
            p.exp_()
        return p

    def add_gradients(self, some: slice, gradient: Tensor, buffer: Tensor) -> None:
        """Add what a block's logits pass on: their ``gradient`` [c, C], but for the targets' -1, is overwritten."""
        own = self.own[some]
        gradient.scatter_add_(1, own, torch.full_like(self.log_p[some], -1))
        if self.repeats is not None and self.d_bias is not None:
            rows, items = self.repeats.part(some.start, some.stop)
            self.d_bias += gradient[rows, items - self.first].sum()
        low = gradient if gradient.dtype == self.x.dtype else buffer[: len(gradient)].copy_(gradient)
        if self.d_x is not None:
            torch.mm(low, self.classes, out=self.d_x[some])
        if self.d_embedding is not None:
            total = self.d_embedding[self.first :]
            if low.dtype == total.dtype:
                total.addmm_(low.T, self.x[some])
            else:
                total += low.T @ self.x[some]

    def finish(self, ctx: Any) -> Tensor:
        """Leave the gradients in ``ctx``, and return the sum of the tokens' cross-entropies in float64, a number."""
        ctx.gradients = self.d_x, self.d_embedding, self.d_bias
        if self.x.is_cpu:
            self._mend_tiny()
        return -self.log_p.sum(dtype=torch.float64)

    def _mend_tiny(self) -> None:
        """Compute ``log p`` from the logits again where p is near what float32 can hold.

        Asking where that is would make the processor wait for a GPU.
        """
        tiny = (self.log_p < TINY)[:, 0]
        if not tiny.any():
            return
        logits = (self.x[tiny] @ self.classes.T).to(self.precise)
        if self.offsets is not None:
            logits += self.offsets
        if self.repeats is not None and self.bias is not None:
            pairs = tiny[self.repeats.rows]
            places = tiny.cumsum(0)[self.repeats.rows[pairs]] - 1
            logits[places, self.repeats.items[pairs] - self.first] += self.bias
        self.log_p[tiny] = logits.gather(1, self.own[tiny]) - logits.logsumexp(1, keepdim=True)


def scaled_gradients(ctx: Any, grad: Tensor) -> list[Tensor | None]:
    """Return the gradients that a forward pass has left in ``ctx``, times ``grad``, in place: once."""
    if ctx.gradients is None:
        raise RuntimeError("the cross-entropy's gradient is kept for one backward pass only.")
    gradients, ctx.gradients = ctx.gradients, None
    return [None if each is None else each.mul_(grad) for each in gradients]
