"""Attention of packed rows in the buckets of a :class:`~adrec.nn.kernels.layout.Layout`, and its decoding cache."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Generator, Tensor, nn

from adrec.nn.initialize import initialize_bias
from adrec.nn.kernels.dropout import keep_mask
from adrec.nn.kernels.layout import Layout
from adrec.nn.kernels.rotary import rotate


class Mixed(NamedTuple):
    """A bucket's tensors for the backward pass: [b H, l, d]; the last three are [b H, l, l]."""

    q: Tensor
    k: Tensor
    v: Tensor
    weights: Tensor
    keep: Tensor | None

    @property
    def dropped(self) -> Tensor:
        """The weights after dropout."""
        return self.weights if self.keep is None else self.weights * self.keep


def scaled_product(a: Tensor, b: Tensor, scale: float, out: Tensor | None = None) -> Tensor:
    """Return ``scale`` times the product of each of the matrices ``a`` [n, r, s] and ``b`` [n, s, t], [n, r, t]."""
    out = a.new_empty(len(a), a.shape[1], b.shape[2]) if out is None else out
    return torch.baddbmm(out, a, b, beta=0, alpha=scale, out=out)


@torch.no_grad()
def mix(qkv: Tensor, plan: Layout, p: float, rng: Generator | None) -> tuple[Tensor, list[Mixed]]:
    """Return the attention outputs [rows, D] of ``qkv`` [rows, 3 D], and each bucket's tensors for the backward pass.

    ``p`` is the dropout of the attention weights; it is off without ``rng``.
    """
    heads = plan.heads
    head_size = qkv.shape[1] // (3 * heads)
    slots = qkv.view(-1, head_size).index_select(0, plan.qkv_of_slots)
    mixed = slots.new_empty(len(plan.rows_of_slots), head_size)
    done, used = [], 0
    for bucket in plan.buckets:
        b, length = bucket.shape
        end = used + b * length * heads
        q, k, v = slots[3 * used : 3 * end].view(3, b * heads, length, head_size)
        if plan.uniform_sink:
            q[:, 0] = 0
        logits = scaled_product(q, k.transpose(1, 2), head_size**-0.5)  # [b H, l, l]
        by_user = logits.view(b, heads, length, length).add_(bucket.bias)
        if bucket.sink_bias is not None:
            by_user[..., 1:, 0] += bucket.sink_bias  # the sink sees itself whatever p is
        weights = torch.softmax(logits, -1, dtype=torch.promote_types(v.dtype, torch.float32)).to(v.dtype)
        done.append(Mixed(q, k, v, weights, keep_mask(weights, p, rng)))
        torch.bmm(done[-1].dropped, v, out=mixed[used:end].view(b * heads, length, head_size))
        used = end
    return mixed.index_select(0, plan.slots_of_rows).view(len(qkv), -1), done


def plain_attention(q: Tensor, k: Tensor, v: Tensor, bias: Tensor) -> Tensor:
    """Return attention of one sequence and head, q, k, v [l, d] -> [l, d], computed in the plain way.

    ``bias`` [l, l] is added to the logits: ``-inf`` for what a query must not see, ``log p`` for a sink of p paddings.
    """
    logits = q @ k.T / math.sqrt(q.shape[-1]) + bias
    return torch.softmax(logits, dim=-1) @ v


class Attend(torch.autograd.Function):
    """:func:`mix` with its gradient; the gradient of every gather is a gather too."""

    @staticmethod
    def forward(  # noqa: D102
        ctx: Any, qkv: Tensor, plan: Layout, p: float, rng: Generator | None
    ) -> Tensor:
        out, done = mix(qkv, plan, p, rng)
        ctx.plan = plan
        ctx.save_for_backward(*(part for each in done for part in each))
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None, None]:  # noqa: D102
        plan, heads, saved = ctx.plan, ctx.plan.heads, ctx.saved_tensors
        all_done = [Mixed(*saved[first : first + 5]) for first in range(0, len(saved), 5)]
        head_size = grad.shape[1] // heads
        d_mixed = grad.reshape(-1, head_size).index_select(0, plan.rows_of_slots).index_fill_(0, plan.dummies, 0)
        d_slots = d_mixed.new_empty(len(plan.qkv_of_slots), head_size)
        used = 0
        for bucket, done in zip(plan.buckets, all_done, strict=True):
            b, length = bucket.shape
            end = used + b * length * heads
            d_out = d_mixed[used:end].view(b * heads, length, head_size)
            d_q, d_k, d_v = d_slots[3 * used : 3 * end].view(3, b * heads, length, head_size)
            torch.bmm(done.dropped.transpose(1, 2), d_out, out=d_v)
            d_weights = torch.bmm(d_out, done.v.transpose(1, 2))  # [b H, l, l]
            if done.keep is not None:
                d_weights *= done.keep
            d_logits = torch.ops.aten._softmax_backward_data(d_weights, done.weights, -1, d_weights.dtype)
            scaled_product(d_logits, done.k, head_size**-0.5, d_q)
            scaled_product(d_logits.transpose(1, 2), done.q, head_size**-0.5, d_k)
            if plan.uniform_sink:
                d_q[:, 0] = 0
            used = end
        return d_slots.index_select(0, plan.slots_of_qkv).view(len(grad), -1), None, None, None


@dataclass(frozen=True)
class Cache:
    """The keys and values of one attention layer: per bucket [b, H, l + 1, d]; the last slot is the step's token.

    Attributes:
        flat: all keys and values, [2, slots, d].
        keys: a view of each bucket's keys.
        values: a view of each bucket's values.
    """

    flat: Tensor
    keys: list[Tensor]
    values: list[Tensor]

    @classmethod
    def empty(cls, plan: Layout, like: Tensor, head_size: int) -> Cache:
        """Return an uninitialised buffer for the keys and values of ``plan``."""
        shapes = [(bucket.shape[0], plan.heads, bucket.shape[1] + 1, head_size) for bucket in plan.buckets]
        sizes = [math.prod(shape[:3]) for shape in shapes]
        flat = like.new_zeros(2, sum(sizes), head_size)
        parts = [part.split(sizes) for part in flat]
        keys, values = ([each.view(shape) for each, shape in zip(part, shapes, strict=True)] for part in parts)
        return cls(flat, keys, values)


class Attention(nn.Module):
    """Multi-head scaled dot-product attention of packed rows."""

    def __init__(self, hidden_size: int, num_heads: int, dropout: float) -> None:
        super().__init__()
        self.num_heads, self.dropout = num_heads, dropout
        self.query_key_value = nn.Linear(hidden_size, 3 * hidden_size)
        self.output = nn.Linear(hidden_size, hidden_size)

    def initialize(self, rng: Generator) -> None:
        """Draw Xavier-normal weights for four matrices: queries, keys, values and output."""
        for matrix in (*self.query_key_value.weight.chunk(3), self.output.weight):
            nn.init.xavier_normal_(matrix, generator=rng)
        for linear in (self.query_key_value, self.output):
            initialize_bias(linear, rng)

    def forward(self, x: Tensor, plan: Layout, rng: Generator | None) -> Tensor:
        """Attend among the rows ``x`` [rows, D]."""
        qkv = self._project(x, plan.rotation)  # [rows, 3 D]
        return self.output(Attend.apply(qkv, plan, self.dropout, rng))  # type: ignore[no-untyped-call]

    def _project(self, x: Tensor, rotation: Tensor | None) -> Tensor:
        qkv = self.query_key_value(x)  # [rows, 3 D]
        return qkv if rotation is None else rotate(qkv, rotation, self.num_heads)

    def fill(self, x: Tensor, plan: Layout) -> Cache:
        """Return the keys and values of the rows ``x`` [rows, D]."""
        head_size = x.shape[1] // self.num_heads
        slots = self._project(x, plan.rotation).view(-1, head_size).index_select(0, plan.qkv_of_slots)
        cache, used = Cache.empty(plan, slots, head_size), 0
        for bucket, keys, values in zip(plan.buckets, cache.keys, cache.values, strict=True):
            b, length = bucket.shape
            end = used + 3 * b * self.num_heads * length
            _, k, v = slots[used:end].view(3, b, self.num_heads, length, head_size)
            keys[:, :, :-1], values[:, :, :-1] = k, v
            used = end
        return cache

    def step(self, x: Tensor, plan: Layout, cache: Cache) -> Tensor:
        """Attend from each user's last token to its history in ``cache`` and to itself.

        In ``x`` [B, D] and in the result the users are in bucket order.
        """
        rotation = None if plan.rotation is None else plan.rotation[:, plan.last_rows[plan.users]]
        qkv = self._project(x, rotation).view(len(x), 3, self.num_heads, -1)  # [B, 3, H, d]
        for part, own in zip(cache.flat, qkv.unbind(1)[1:], strict=True):
            part.index_copy_(0, plan.steps, own.reshape(-1, own.shape[-1]))
        queries = torch.split(qkv[:, 0, :, None], [bucket.shape[0] for bucket in plan.buckets])  # each [b, H, 1, d]
        mixed = [
            F.scaled_dot_product_attention(q, keys, values, bucket.seen)
            for bucket, q, keys, values in zip(plan.buckets, queries, cache.keys, cache.values, strict=True)
        ]
        return self.output(torch.cat(mixed).flatten(1))
