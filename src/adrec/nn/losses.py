"""The two losses of the paper (section 4.4), on packed tokens, and what joins them.

Each is a sum over the tokens of a batch with the denominators of the whole batch, so that the losses, and so the
gradients, of a batch's parts add up to its own.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from adrec.data.batch import PackedBatch
from adrec.nn.repeats import Repeats

LOGITS = 1 << 24  # the most logits that are held at once: 64 MiB of float32
TINY = math.log(1e-30)
FEWEST_TOKENS = 64  # at a time: with fewer, adding to the item embedding's gradient costs more than the product


class CatalogueCrossEntropy(torch.autograd.Function):
    """Cross-entropy against every item, its gradient computed at once, so that only some tokens' logits exist."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        item_embedding: Tensor,
        targets: Tensor,
        first: int,
        repeat_bias: Tensor | None,
        repeats: Repeats | None,
    ) -> Tensor:
        """Return the sum of the tokens' losses; classes are the rows of the embedding from ``first`` on."""
        embedding = item_embedding[first:].to(x.dtype)  # [C, D]
        precise = torch.promote_types(x.dtype, torch.float32)
        of_x, of_embedding = ctx.needs_input_grad[:2]
        d_x = torch.empty_like(x) if of_x else None
        d_embedding = torch.zeros_like(item_embedding, dtype=precise) if of_embedding else None
        own, log_p = targets[:, None] - first, torch.empty(len(x), 1, dtype=precise, device=x.device)
        chunk = chunk_of_tokens(len(embedding), len(x))
        d_bias = None if repeat_bias is None else torch.zeros_like(repeat_bias)
        room = x.new_empty(chunk, len(embedding))  # [c, C]
        for start in range(0, len(x), chunk):
            some = slice(start, start + chunk)
            logits = torch.mm(x[some], embedding.T, out=room[: len(x) - start])
            if repeats is not None and repeat_bias is not None:
                rows, items = repeats.part(start, min(start + chunk, len(x)))
                logits[rows, items - first] += repeat_bias  # each pair once
            p, log_p[some] = softmax(logits, own[some], precise)
            p.scatter_add_(1, own[some], torch.full_like(log_p[some], -1))  # the gradient of the logits
            if repeats is not None and d_bias is not None:
                d_bias += p[rows, items - first].sum()
            low = p.to(x.dtype)
            if d_x is not None:
                torch.mm(low, embedding, out=d_x[some])
            if d_embedding is not None:
                add_product(d_embedding[first:], low.T, x[some])
        ctx.gradients = d_x, d_embedding, d_bias
        if x.is_cpu:
            mend_tiny(log_p, x, embedding, own, raised(repeats, repeat_bias, first))
        return log_p.neg_().sum(dtype=torch.float64).to(precise)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        """Scale the gradients, in place: they can be asked for once."""
        d_x, d_embedding, d_bias = scaled_gradients(ctx, grad)
        return d_x, d_embedding, None, None, d_bias, None


def scaled_gradients(ctx: Any, grad: Tensor) -> list[Tensor | None]:
    """Return the gradients that a forward pass has left in ``ctx``, times ``grad``, in place: once."""
    if ctx.gradients is None:
        raise RuntimeError("the cross-entropy's gradient is kept for one backward pass only.")
    gradients, ctx.gradients = ctx.gradients, None
    return [None if each is None else each.mul_(grad) for each in gradients]


def chunk_of_tokens(num_classes: int, num_tokens: int) -> int:
    """Return how many of some tokens have their logits computed at a time."""
    return min(max(FEWEST_TOKENS, min(1024, LOGITS // num_classes)), num_tokens)


def softmax(logits: Tensor, own: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Return all classes' probabilities p [c, C], in place of ``logits`` if they fit, and ``log p`` of ``own``."""
    place = logits if logits.dtype == dtype else None
    if logits.is_cpu:  # the exponential of all log p takes longer than some more logits, where p is tiny
        p = torch.softmax(logits, 1, dtype=dtype, out=place)
        return p, p.gather(1, own).log_()
    log_p = torch.log_softmax(logits, 1, dtype=dtype, out=place)
    own_log_p = log_p.gather(1, own)
    return log_p.exp_(), own_log_p


def raised(repeats: Repeats | None, bias: Tensor | None, first: int) -> Callable[[Tensor, Tensor], None]:
    """Return what adds the bias of repeats to the logits of those tokens that a mask [N] names."""

    def add(logits: Tensor, which: Tensor) -> None:
        if repeats is not None and bias is not None:
            pairs = which[repeats.rows]
            places = which.cumsum(0)[repeats.rows[pairs]] - 1
            logits[places, repeats.items[pairs] - first] += bias

    return add


def mend_tiny(
    log_p: Tensor, x: Tensor, embedding: Tensor, own: Tensor, add_bias: Callable[[Tensor, Tensor], None]
) -> None:
    """Compute ``log_p`` [N, 1] from the logits again where p is near what float32 can hold, in place.

    Asking where that is would make the processor wait for a GPU.
    """
    tiny = (log_p < TINY)[:, 0]
    if tiny.any():
        logits = (x[tiny] @ embedding.T).to(log_p.dtype)
        add_bias(logits, tiny)
        log_p[tiny] = logits.gather(1, own[tiny]) - logits.logsumexp(1, keepdim=True)


def add_product(total: Tensor, a: Tensor, b: Tensor) -> None:
    """Add the product of ``a`` and ``b`` to ``total``, which may be more precise than they are."""
    if a.dtype == total.dtype:
        total.addmm_(a, b)
    else:
        total += a @ b


def cross_entropy(
    x: Tensor,
    item_embedding: Tensor,
    targets: Tensor,
    *,
    padding_class: bool,
    num_tokens: int | None = None,
    repeat_bias: Tensor | None = None,
    repeats: Repeats | None = None,
) -> Tensor:
    """Mean over tokens of the cross-entropy against the whole catalogue. Its backward pass can run once.

    Args:
        x: outputs, [N, D].
        item_embedding: E, [V + 1, D]; row 0 is padding.
        targets: item numbers, int64 [N].
        padding_class: whether row 0 is one of the classes.
        num_tokens: what the sum is divided by: N, or that of the whole batch of which these tokens are a part.
        repeat_bias: is added to the logits of ``repeats``, a number.
        repeats: the items that each token has met.
    """
    first = 0 if padding_class else 1
    total: Tensor = CatalogueCrossEntropy.apply(x, item_embedding, targets, first, repeat_bias, repeats)  # type: ignore[no-untyped-call]
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
    """

    whole: PackedBatch
    draws: Any = None
    weights: Mapping[str, float] = field(default_factory=dict)
    low: bool = False
    consistency: float = 0.0

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
