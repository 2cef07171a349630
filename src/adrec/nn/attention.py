"""Attention of packed rows: over buckets of users of similar length, with the padding sink and a cache for decoding.

A batch of B sequences is one flat tensor of rows: first the N real tokens, user after user, then, where padding is
attended, B sink rows, one for each user. Attention alone lays rows out in slots: users of similar length form a bucket,
padded to the longest of them, each with its sink in front.

Why a sink: the published code left-pads to L and lets real tokens attend to the padding. A user's p paddings are
alike, so (without dropout) attending to all of them equals attending to one whose logit gets ``+ log p``.
In training, dropout draws one value for each user's sink where the published code draws p of them.

Rows go to slots, and back, in one gather each: a slot behind a sequence's end repeats a row that nothing real attends
to, so that its gradient is exactly 0 and the gradient of a gather is the opposite gather, never a scatter.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Generator, Tensor, nn

from adrec.nn.dropout import keep_mask

NEVER = -1e9  # a finite logit that softmax turns into exactly 0, so that no row is all -inf

Int32s = NDArray[np.int32]
Int64s = NDArray[np.int64]


@dataclass(frozen=True)
class Bucket:
    """b users of similar length, padded to l slots.

    Attributes:
        users: which users of the batch, int64 [b].
        shape: (b, l).
        last: the slot of each user's last token, int64 [b].
        bias: what is added to the logits: [l, l] with causal attention, [b, 1, 1, l] without.
        sink_bias: what is added to the logits of slot 0, [b, 1, 1]; None where ``bias`` has it, or there is no sink.
    """

    users: Tensor
    shape: tuple[int, int]
    last: Tensor
    bias: Tensor
    sink_bias: Tensor | None

    @cached_property
    def seen(self) -> Tensor:
        """What is added to the logits of a step's token [b, 1, 1, l + 1], which stands behind its history's slots."""
        behind = torch.arange(self.shape[1] + 1, device=self.last.device) >= self.last[:, None]  # [b, l + 1]
        behind[:, -1] = False
        bias = behind.to(self.bias.dtype).mul_(NEVER)[:, None, None]
        if self.sink_bias is not None:
            bias[..., 0] += self.sink_bias
        return bias


@dataclass(frozen=True)
class Layout:
    """Where each row of a packed batch stands in attention with H heads of size d.

    Slots are numbered bucket by bucket, in a bucket by (query, key or value,) user, head and slot.

    Attributes:
        buckets: the padded buckets.
        spread: for the queries, keys and values in slots, their place among the rows' [rows, 3, H], int32.
        collect: for each of [rows, 3, H] its slot, int32: the inverse of ``spread``.
        spread_one: as ``spread``, for one of the three, rows as [rows, H].
        collect_one: the inverse of ``spread_one``.
        dummies: the slots of ``spread_one`` that hold no row of their own.
        num_tokens: N, the real tokens; the rows after them are sinks.
        last_rows: the flat row of each user's last token, [B].
        row_users: the user of each row, [rows].
        uniform_sink: whether the sink attends to all tokens alike, as padding does in bidirectional attention: the
            published code masks the rows of padding queries, which leaves them a uniform softmax. With causal
            attention padding sees only padding, all alike, so there the weights do not matter.
    """

    buckets: tuple[Bucket, ...]
    spread: Tensor
    collect: Tensor
    spread_one: Tensor
    collect_one: Tensor
    dummies: Tensor
    num_tokens: int
    last_rows: Tensor
    row_users: Tensor
    uniform_sink: bool

    @cached_property
    def users(self) -> Tensor:
        """The users in the order of the buckets, int64 [B]."""
        return torch.cat([bucket.users for bucket in self.buckets])


def layout(lengths: Int64s, max_length: int, *, heads: int, sink: bool, causal: bool, device: torch.device) -> Layout:
    """Plan the attention of sequences of ``lengths`` [B] (each 1..L tokens) in a model of L = ``max_length``."""
    num_users, num_tokens, front = len(lengths), int(lengths.sum()), int(sink)
    starts = np.cumsum(lengths) - lengths
    row_users = np.repeat(np.arange(num_users), lengths)
    if sink:
        row_users = np.concatenate([row_users, np.arange(num_users)])

    def put(array: NDArray[Any]) -> Tensor:
        return torch.from_numpy(array).to(device)

    places, buckets = _Places(len(row_users), heads), []
    exponents = np.ceil(np.log2(np.maximum(lengths, 4)))  # buckets of up to 4, 8, 16, 32 ... tokens
    for exponent in np.unique(exponents):
        users = np.flatnonzero(exponents == exponent)
        own = lengths[users]
        position = np.arange(int(own.max()))
        real = position < own[:, None]  # [b, l]
        rows = np.where(real, starts[users, None] + position, starts[users, None])
        if sink:
            rows = np.concatenate([num_tokens + users[:, None], rows], axis=1)
            real = np.concatenate([np.ones((len(users), 1), dtype=bool), real], axis=1)
        places.add(rows.astype(np.int32), real)
        bias, sink_bias = _biases(own, max_length, real, sink=sink, causal=causal)
        shape = (len(users), rows.shape[1])
        near = None if sink_bias is None else put(sink_bias)
        buckets.append(Bucket(put(users), shape, put(own - 1 + front), put(bias), near))
    return Layout(
        buckets=tuple(buckets),
        spread=put(np.concatenate(places.spread)),
        collect=put(places.collect(3)),
        spread_one=put(np.concatenate(places.spread_one)),
        collect_one=put(places.collect(1)),
        dummies=put(np.concatenate(places.dummies)),
        num_tokens=num_tokens,
        last_rows=put(starts + lengths - 1),
        row_users=put(row_users),
        uniform_sink=sink and not causal,
    )


class _Places:
    """Numbers rows and slots against each other, a bucket at a time."""

    def __init__(self, num_rows: int, heads: int) -> None:
        self.heads, self.used = heads, 0
        self.head = np.arange(heads, dtype=np.int32)
        # Of each row: the slots in buckets before its own, its user and slot in its bucket, its bucket's b and l.
        self.before, self.user, self.slot, self.b, self.length = (np.empty(num_rows, dtype=np.int32) for _ in range(5))
        self.spread: list[Int32s] = []
        self.spread_one: list[Int32s] = []
        self.dummies: list[Int64s] = []

    def add(self, rows: Int32s, real: NDArray[np.bool_]) -> None:
        """Add a bucket whose slots hold ``rows`` [b, l], some of them ``real``."""
        b, length = rows.shape
        head = self.head[:, None]  # [H, 1]
        part = np.arange(3, dtype=np.int32)[:, None, None, None]  # [3, 1, 1, 1]
        spaced = rows[:, None, :]  # [b, 1, l]
        self.spread.append(((spaced * 3 + part) * self.heads + head).ravel())  # [3 b H l]
        self.spread_one.append((spaced * self.heads + head).ravel())  # [b H l]
        idle = np.broadcast_to(~real[:, None, :], (b, self.heads, length))
        self.dummies.append(np.flatnonzero(idle) + self.used * self.heads)
        user, slot = np.nonzero(real)
        own = rows[real]
        self.before[own], self.user[own], self.slot[own], self.b[own], self.length[own] = (
            self.used,
            user,
            slot,
            b,
            length,
        )
        self.used += b * length

    def collect(self, parts: int) -> Int32s:
        """Return the slot of each of [rows, parts, H], where each bucket's slots are [parts, b, H, l]."""
        first = (self.before * parts + self.user * self.length) * self.heads + self.slot  # [rows]
        of_part = np.arange(parts, dtype=np.int32) * (self.b * self.length * self.heads)[:, None]  # [rows, parts]
        of_head = self.head * self.length[:, None]  # [rows, H]
        return ((first[:, None] + of_part)[:, :, None] + of_head[:, None, :]).ravel()


def _biases(
    lengths: Int64s, max_length: int, real: NDArray[np.bool_], *, sink: bool, causal: bool
) -> tuple[NDArray[np.float32], NDArray[np.float32] | None]:
    """Return a bucket's ``bias`` and ``sink_bias``: log p for the sink, never for what must not be seen."""
    padding = max_length - lengths
    near = np.where(padding > 0, np.log(np.maximum(padding, 1)), NEVER).astype(np.float32)[:, None, None]  # [b, 1, 1]
    if causal:  # nothing real sees the slots behind its end
        num_slots = real.shape[1]
        return np.triu(np.full((num_slots, num_slots), NEVER, dtype=np.float32), k=1), near if sink else None
    keys = np.where(real, 0.0, NEVER).astype(np.float32)[:, None, None, :]  # [b, 1, 1, l]
    if sink:
        keys[..., 0] = near
    return keys, None


@dataclass
class Mixed:
    """What a bucket's attention leaves for the backward pass: [b H, l, d] or, of the last three, [b H, l, l]."""

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
def mix(qkv: Tensor, plan: Layout, heads: int, p: float, rng: Generator | None) -> tuple[Tensor, list[Mixed]]:
    """Return the mixed values of the rows ``qkv`` [rows, 3 D], [rows, D], and what each bucket did.

    ``p`` is the dropout of the attention weights, off without ``rng``.
    """
    head_size = qkv.shape[1] // (3 * heads)
    slots = qkv.view(-1, head_size).index_select(0, plan.spread)
    mixed = slots.new_empty(len(plan.spread_one), head_size)
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
            by_user[..., 0] += bucket.sink_bias
        weights = torch.softmax(logits, -1, dtype=torch.promote_types(v.dtype, torch.float32)).to(v.dtype)
        done.append(Mixed(q, k, v, weights, keep_mask(weights, p, rng)))
        torch.bmm(done[-1].dropped, v, out=mixed[used:end].view(b * heads, length, head_size))
        used = end
    return mixed.index_select(0, plan.collect_one).view(len(qkv), -1), done


class Attend(torch.autograd.Function):
    """:func:`mix` with its gradient, every gather's gradient a gather."""

    @staticmethod
    def forward(  # noqa: D102
        ctx: Any, qkv: Tensor, plan: Layout, heads: int, p: float, rng: Generator | None
    ) -> Tensor:
        out, ctx.done = mix(qkv, plan, heads, p, rng)
        ctx.plan, ctx.heads = plan, heads
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None, None, None]:  # noqa: D102
        plan, heads = ctx.plan, ctx.heads
        head_size = grad.shape[1] // heads
        d_mixed = grad.reshape(-1, head_size).index_select(0, plan.spread_one).index_fill_(0, plan.dummies, 0)
        d_slots = d_mixed.new_empty(len(plan.spread), head_size)
        used = 0
        for bucket, done in zip(plan.buckets, ctx.done, strict=True):
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
        return d_slots.index_select(0, plan.collect).view(len(grad), -1), None, None, None, None


@dataclass
class Cache:
    """Keys and values of one attention layer, a pair [b, H, l + 1, d] for each bucket; the last slot is the step's."""

    keys: list[Tensor]
    values: list[Tensor]


class Attention(nn.Module):
    """Multi-head scaled dot-product attention of packed rows."""

    def __init__(self, hidden_size: int, num_heads: int, dropout: float) -> None:
        super().__init__()
        self.num_heads, self.dropout = num_heads, dropout
        self.query_key_value = nn.Linear(hidden_size, 3 * hidden_size)
        self.output = nn.Linear(hidden_size, hidden_size)

    def initialize(self, rng: Generator) -> None:
        """Draw Xavier-normal weights: queries, keys, values and output are a matrix each."""
        for matrix in (*self.query_key_value.weight.chunk(3), self.output.weight):
            nn.init.xavier_normal_(matrix, generator=rng)
        for linear in (self.query_key_value, self.output):
            initialize_bias(linear, rng)

    def forward(self, x: Tensor, plan: Layout, rng: Generator | None, cache: Cache | None = None) -> Tensor:
        """Attend among the rows ``x`` [rows, D]; a ``cache`` given is filled with the keys and values."""
        qkv = self.query_key_value(x)  # [rows, 3 D]
        if cache is None:
            return self.output(Attend.apply(qkv, plan, self.num_heads, self.dropout, rng))  # type: ignore[no-untyped-call]
        mixed, done = mix(qkv, plan, self.num_heads, self.dropout, rng)
        for bucket, each in zip(plan.buckets, done, strict=True):
            shape = (bucket.shape[0], self.num_heads, bucket.shape[1], -1)
            cache.keys.append(F.pad(each.k.view(shape), (0, 0, 0, 1)))
            cache.values.append(F.pad(each.v.view(shape), (0, 0, 0, 1)))
        return self.output(mixed)

    def step(self, x: Tensor, plan: Layout, cache: Cache) -> Tensor:
        """Attend from each user's last token to its history in ``cache`` and to itself.

        ``x`` [B, D] and the result have the users in the order of the buckets.
        """
        q, k, v = self.query_key_value(x).view(len(x), 3, self.num_heads, -1).unbind(1)  # 3 x [B, H, d]
        mixed, first = [], 0
        for bucket, keys, values in zip(plan.buckets, cache.keys, cache.values, strict=True):
            own = slice(first, first + bucket.shape[0])
            keys[:, :, -1], values[:, :, -1] = k[own], v[own]
            mixed.append(F.scaled_dot_product_attention(q[own, :, None], keys, values, bucket.seen))  # [b, H, 1, d]
            first = own.stop
        return self.output(torch.cat(mixed).flatten(1))


def initialize_bias(linear: nn.Linear, rng: Generator) -> None:
    """Draw a bias as PyTorch does: uniform within 1 / sqrt(inputs)."""
    bound = 1 / math.sqrt(linear.in_features)
    nn.init.uniform_(linear.bias, -bound, bound, generator=rng)
