"""The exact ways of computing packed causal attention with the padding sink, from PyTorch's parts.

A way is told a batch's :class:`Users` and returns a function from the queries, keys and values of all rows,
[rows, 3 D], to the result, [rows, D]. What depends on lengths alone (layouts, masks) is made before: once a batch, for
all layers. Where a kernel takes no bias, heads get further entries: 1 in queries, the bias in the sinks' keys.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.attention.flex_attention import create_block_mask, flex_attention
from torch.nn.attention.varlen import varlen_attn

from adrec.nn.kernels.attention import Attend
from adrec.nn.kernels.layout import NEVER, Bucket, Layout, layout

FURTHER = 8  # entries added to a head where the bias is one of them

Attention = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Users:
    """A batch as attention sees it: rows are the tokens, user after user, then a sink of each."""

    lengths: NDArray[np.int64]
    max_length: int = 50
    heads: int = 4
    head_size: int = 32
    device: str = "cpu"

    @cached_property
    def plan(self) -> Layout:
        """Our layout."""
        device = torch.device(self.device)
        return layout(self.lengths, self.max_length, heads=self.heads, sink=True, causal=True, device=device)

    @property
    def num_tokens(self) -> int:
        """N; the sinks are the rows from there."""
        return int(self.lengths.sum())

    @property
    def log_p(self) -> Tensor:
        """The bias of each user's sink, [B]."""
        padding = self.put(self.max_length - self.lengths)
        return torch.where(padding > 0, padding.clamp(min=1).log(), NEVER)

    def put(self, array: NDArray[Any]) -> Tensor:
        """Return an array as a tensor where the users are."""
        return torch.from_numpy(array).to(self.device)


class Gather(torch.autograd.Function):
    """Rows ``there``; the gradient is the gather ``back``, 0 in the rows ``idle``. As in ours, never a scatter."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, there: Tensor, back: Tensor, idle: Tensor | None) -> Tensor:  # noqa: D102
        ctx.save_for_backward(back, idle)
        return x.index_select(0, there)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None, None]:  # noqa: D102
        back, idle = ctx.saved_tensors
        grad = grad.index_select(0, back)
        return grad if idle is None else grad.index_fill(0, idle, 0), None, None, None


def gather(x: Tensor, there: Tensor, back: Tensor, idle: Tensor | None = None) -> Tensor:
    """Apply :class:`Gather`."""
    result: Tensor = Gather.apply(x, there, back, idle)  # type: ignore[no-untyped-call]
    return result


def ours(users: Users) -> Attention:
    """Buckets of similar length, matrix products and a softmax."""
    plan = users.plan
    return lambda qkv: Attend.apply(qkv, plan, 0.0, None)  # type: ignore[no-untyped-call]


def masked(bucket: Bucket) -> Tensor:
    """Return what is added to a bucket's logits, [b, 1, l, l]."""
    mask = bucket.bias.repeat(bucket.shape[0], 1, 1, 1)
    assert bucket.sink_bias is not None
    mask[..., 1:, 0] += bucket.sink_bias
    return mask


def softmax_attention(q: Tensor, k: Tensor, v: Tensor, mask: Tensor) -> Tensor:
    """Attend as the formula is written, [b, H, l, d]."""
    return torch.softmax(q @ k.mT * q.shape[-1] ** -0.5 + mask, -1) @ v


def in_buckets(qkv: Tensor, plan: Layout, masks: list[Tensor], attend: Callable[..., Tensor]) -> Tensor:
    """Attend in each bucket of the layout."""
    slots = gather(qkv.view(-1, qkv.shape[1] // (3 * plan.heads)), plan.qkv_of_slots, plan.slots_of_qkv)
    shapes = [(3, bucket.shape[0], plan.heads, bucket.shape[1], slots.shape[1]) for bucket in plan.buckets]
    parts = torch.split(slots, [3 * b * heads * length for _, b, heads, length, _ in shapes])
    mixed = [
        attend(*part.view(shape).unbind(0), mask).flatten(0, 2)
        for part, shape, mask in zip(parts, shapes, masks, strict=True)
    ]
    return gather(torch.cat(mixed), plan.slots_of_rows, plan.rows_of_slots, plan.dummies).view(len(qkv), -1)


def bucketed(users: Users, attend: Callable[..., Tensor], *, compiled: bool = False) -> Attention:
    """The same buckets with another attention in them."""
    plan, masks = users.plan, [masked(bucket) for bucket in users.plan.buckets]
    work = torch.compile(in_buckets, dynamic=True) if compiled else in_buckets
    return lambda qkv: work(qkv, plan, masks, attend)


def padded(users: Users) -> Attention:
    """Histories padded on the left to L with the sink's row: attending to all p paddings needs no bias."""
    length, num_tokens = users.max_length, users.num_tokens
    place = np.arange(length) - (length - users.lengths[:, None])  # [B, L], padding below 0
    starts, sinks = np.cumsum(users.lengths) - users.lengths, num_tokens + np.arange(len(users.lengths))
    rows = users.put(np.where(place >= 0, starts[:, None] + place, sinks[:, None]))
    slots = users.put(np.flatnonzero(place >= 0))

    def attend(qkv: Tensor) -> Tensor:
        size = qkv.shape[1] // 3
        q, k, v = F.embedding(rows, qkv).view(*rows.shape, 3, users.heads, -1).permute(2, 0, 3, 1, 4)
        out = F.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2).reshape(-1, size)
        return torch.cat([out.index_select(0, slots), qkv[num_tokens:, 2 * size :]])  # a sink sees itself

    return attend


def joined(users: Users, kernel: Callable[..., Tensor], dtype: torch.dtype) -> Attention:
    """Sequences one behind the other, each with its sink in front; the bias is in further entries of a head."""
    lengths, heads, num_users = users.lengths, users.heads, len(users.lengths)
    first = np.cumsum(lengths) - lengths + np.arange(num_users)  # the sinks' places
    places = np.arange(users.num_tokens) + np.repeat(np.arange(num_users), lengths) + 1  # the tokens'
    inverse = np.concatenate([places, first])
    back, order = users.put(inverse), users.put(np.argsort(inverse))
    ends, longest = users.put(np.append(first, len(inverse)).astype(np.int32)), int(lengths.max()) + 1
    bias, scale = torch.zeros(len(order), heads, FURTHER, dtype=dtype, device=users.device), users.head_size**-0.5
    ones, left = torch.ones_like(bias), users.log_p.double() / scale
    for part in range(FURTHER):  # what few bits cannot hold goes on in the next entry
        bias[users.put(first), :, part] = left.to(dtype)[:, None]
        left = left - left.to(dtype)

    def attend(qkv: Tensor) -> Tensor:
        q, k, v = gather(qkv.to(dtype), order, back).view(len(qkv), 3, heads, -1).unbind(1)
        q, k, v = torch.cat([q, ones], -1), torch.cat([k, bias], -1), F.pad(v, (0, FURTHER))
        out = kernel(q, k, v, ends, longest, scale)[..., : users.head_size].reshape(len(qkv), -1)  # [rows, D]
        return gather(out, back, order).to(qkv.dtype)

    return attend


def nested(q: Tensor, k: Tensor, v: Tensor, ends: Tensor, longest: int, scale: float) -> Tensor:
    """Attend in jagged tensors, [rows, H, d]."""
    offsets = ends.long()  # one tensor: equal offsets of another would count as other lengths
    q, k, v = (
        torch.nested.nested_tensor_from_jagged(part, offsets, min_seqlen=2, max_seqlen=longest).transpose(1, 2)
        for part in (q, k, v)
    )
    return F.scaled_dot_product_attention(q, k, v, is_causal=True, scale=scale).transpose(1, 2).values()


def varlen(q: Tensor, k: Tensor, v: Tensor, ends: Tensor, longest: int, scale: float) -> Tensor:
    """Attend with the flash kernel of packed sequences, [rows, H, d]."""
    if not q.is_cuda:
        raise NotImplementedError("needs a GPU")
    out = varlen_attn(q, k, v, ends, ends, longest, longest, scale=scale, window_size=(-1, 0))
    assert isinstance(out, Tensor)
    return out


def flex(users: Users, *, compiled: bool) -> Attention:
    """All rows are one sequence; who sees whom is a block mask, and the bias modifies scores.

    Compiled anew for each number of rows: with dynamic shapes the C++ that PyTorch 2.13 writes for CPUs is not valid.
    """
    owner, log_p, num_tokens = users.plan.row_users, users.log_p, users.num_tokens
    num_rows, work = len(owner), torch.compile(flex_attention, dynamic=False) if compiled else flex_attention

    def seen(b: Tensor, h: Tensor, q: Tensor, k: Tensor) -> Tensor:
        return (owner[q] == owner[k]) & torch.where(k < num_tokens, (k <= q) & (q < num_tokens), True)

    def score(logit: Tensor, b: Tensor, h: Tensor, q: Tensor, k: Tensor) -> Tensor:
        return torch.where((k >= num_tokens) & (q < num_tokens), logit + log_p[owner[k]], logit)

    mask = create_block_mask(seen, None, None, num_rows, num_rows, device=users.device)

    def attend(qkv: Tensor) -> Tensor:
        if qkv.requires_grad and not qkv.is_cuda:  # said here: an error inside would turn the compiled way off
            raise NotImplementedError("no backward on a CPU")
        q, k, v = qkv.view(1, num_rows, 3, users.heads, -1).permute(2, 0, 3, 1, 4).contiguous().unbind(0)
        return work(q, k, v, score_mod=score, block_mask=mask)[0].transpose(0, 1).reshape(num_rows, -1)

    return attend


WAYS: Mapping[str, Callable[[Users], Attention]] = {
    "ours": ours,
    "sdpa in buckets": partial(bucketed, attend=F.scaled_dot_product_attention),
    "sdpa in buckets, compiled": partial(bucketed, attend=F.scaled_dot_product_attention, compiled=True),
    "softmax in buckets": partial(bucketed, attend=softmax_attention),
    "softmax in buckets, compiled": partial(bucketed, attend=softmax_attention, compiled=True),
    "sdpa padded to L": padded,
    "nested tensors": partial(joined, kernel=nested, dtype=torch.float32),
    "varlen_attn, bfloat16": partial(joined, kernel=varlen, dtype=torch.bfloat16),
    "flex_attention": partial(flex, compiled=False),
    "flex_attention, compiled per shape": partial(flex, compiled=True),
}
