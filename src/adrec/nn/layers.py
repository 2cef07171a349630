"""Transformer blocks on packed tokens: attention over length buckets, the padding sink, the key-value cache.

A batch of B sequences is one flat tensor of rows: first the N real tokens, user after user, then, where padding is
attended, B sink rows, one for each user. Everything but attention works on rows. Attention lays the rows out as
padded buckets of users of similar length; the sink stands in front of its user's tokens.

Why a sink: the published code left-pads to L and lets real tokens attend to the padding. A user's p paddings are
alike, so (without dropout) attending to all of them equals attending to one whose logit gets ``+ log p``.
In training, dropout draws one value for each user's sink where the published code draws p of them.

Dropout is on exactly where a generator is passed.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import cast

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Generator, Tensor, nn

NEVER = -1e9  # a finite logit that softmax turns into exactly 0, so that no row is all -inf


def dropout(x: Tensor, p: float, rng: Generator | None) -> Tensor:
    """Zero each entry with probability ``p`` and scale the others by 1 / (1 - p); the identity without ``rng``."""
    if rng is None or p == 0:
        return x
    keep = torch.empty_like(x).bernoulli_(1 - p, generator=rng)
    return x * keep.mul_(1 / (1 - p))


@dataclass(frozen=True)
class Bucket:
    """Users of similar length, padded to the longest of them.

    Attributes:
        users: which users of the batch, [b].
        rows: the flat row in each slot, [b, l]; slots behind a sequence's end repeat a row and are masked.
        last: the slot of each user's last token, [b].
        bias: what is added to the logits, [b, 1, l or 1, l].
    """

    users: Tensor
    rows: Tensor
    last: Tensor
    bias: Tensor


@dataclass(frozen=True)
class Layout:
    """Where each row of a packed batch stands in attention.

    Attributes:
        buckets: the padded buckets.
        slots: for each flat row its place among the concatenated slots of all buckets, [rows].
        num_tokens: N, the real tokens; the rows after them are sinks.
        last_rows: the flat row of each user's last token, [B].
        row_users: the user of each row, [rows].
        uniform_sink: whether the sink attends to all tokens alike, as padding does in bidirectional attention: the
            published code masks the rows of padding queries, which leaves them a uniform softmax. With causal
            attention padding sees only padding, all alike, so there the weights do not matter.
    """

    buckets: tuple[Bucket, ...]
    slots: Tensor
    num_tokens: int
    last_rows: Tensor
    row_users: Tensor
    uniform_sink: bool


def layout(lengths: NDArray[np.int64], max_length: int, *, sink: bool, causal: bool, device: torch.device) -> Layout:
    """Plan the attention of sequences of ``lengths`` [B] (each 1..L tokens) in a model of L = ``max_length``."""
    num_users, num_tokens = len(lengths), int(lengths.sum())
    starts = np.cumsum(lengths) - lengths
    front = int(sink)
    slots = np.empty(num_tokens + front * num_users, dtype=np.int64)
    exponents = np.ceil(np.log2(np.maximum(lengths, 4)))  # buckets of up to 4, 8, 16, 32 ... tokens
    buckets, offset = [], 0
    for exponent in np.unique(exponents):
        users = np.flatnonzero(exponents == exponent)
        own = lengths[users]
        position = np.arange(int(own.max()))
        real = position < own[:, None]  # [b, l]
        rows = np.where(real, starts[users, None] + position, starts[users, None])
        if sink:
            rows = np.concatenate([num_tokens + users[:, None], rows], axis=1)
            real = np.concatenate([np.ones((len(users), 1), dtype=bool), real], axis=1)
        slots[rows[real]] = offset + np.flatnonzero(real)
        offset += rows.size
        bias = _bias(own, max_length, real, sink=sink, causal=causal)
        tensors = (torch.from_numpy(part).to(device) for part in (users, rows, own - 1 + front, bias))
        buckets.append(Bucket(*tensors))
    row_users = np.repeat(np.arange(num_users), lengths)
    row_users = np.concatenate([row_users, np.arange(num_users)]) if sink else row_users
    last_rows = starts + lengths - 1
    flat = (torch.from_numpy(part).to(device) for part in (slots, last_rows, row_users))
    return Layout(tuple(buckets), next(flat), num_tokens, next(flat), next(flat), sink and not causal)


def _bias(
    lengths: NDArray[np.int64], max_length: int, real: NDArray[np.bool_], *, sink: bool, causal: bool
) -> NDArray[np.float32]:
    """Return the logit bias [b, 1, l or 1, l]: log p for the sink, never for what must not be seen."""
    num_slots = real.shape[1]
    keys = np.where(real, 0.0, NEVER)[:, None, None, :]  # [b, 1, 1, l]
    if sink:
        padding = (max_length - lengths).astype(np.float64)
        keys[:, 0, 0, 0] = np.where(padding > 0, np.log(np.maximum(padding, 1)), NEVER)
    if not causal:
        return np.ascontiguousarray(keys, dtype=np.float32)
    future = np.triu(np.full((num_slots, num_slots), NEVER), k=1)
    return np.maximum(keys + future, NEVER).astype(np.float32)


@dataclass
class Cache:
    """Keys and values [b, H, l, d] of one attention layer, a pair for each bucket."""

    keys: list[Tensor]
    values: list[Tensor]


def initialize_bias(linear: nn.Linear, rng: Generator) -> None:
    """Draw a bias as PyTorch does: uniform within 1 / sqrt(inputs)."""
    bound = 1 / math.sqrt(linear.in_features)
    nn.init.uniform_(linear.bias, -bound, bound, generator=rng)


class Attention(nn.Module):
    """Multi-head scaled dot-product attention of packed rows."""

    def __init__(self, hidden_size: int, num_heads: int, dropout: float) -> None:
        super().__init__()
        self.num_heads, self.dropout = num_heads, dropout
        self.scale = 1 / math.sqrt(hidden_size // num_heads)
        self.query_key_value = nn.Linear(hidden_size, 3 * hidden_size)
        self.output = nn.Linear(hidden_size, hidden_size)

    def initialize(self, rng: Generator) -> None:
        """Draw Xavier-normal weights: queries, keys, values and output are a matrix each."""
        for matrix in (*self.query_key_value.weight.chunk(3), self.output.weight):
            nn.init.xavier_normal_(matrix, generator=rng)
        for linear in (self.query_key_value, self.output):
            initialize_bias(linear, rng)

    def forward(self, x: Tensor, layout: Layout, rng: Generator | None, cache: Cache | None = None) -> Tensor:
        """Attend among the rows ``x`` [rows, D]; a ``cache`` given is filled with the keys and values."""
        qkv = self.query_key_value(x)  # [rows, 3 D]
        mixed = []
        for bucket in layout.buckets:
            slots = qkv.index_select(0, bucket.rows.flatten()).view(*bucket.rows.shape, 3, self.num_heads, -1)
            q, k, v = slots.permute(2, 0, 3, 1, 4)  # 3 x [b, H, l, d]
            if layout.uniform_sink:
                q = torch.cat([torch.zeros_like(q[:, :, :1]), q[:, :, 1:]], dim=2)
            if cache is not None:
                cache.keys.append(k.contiguous())
                cache.values.append(v.contiguous())
            mixed.append(self._mix(q, k, v, bucket.bias, rng).transpose(1, 2).reshape(-1, x.shape[1]))
        return self.output(torch.cat(mixed).index_select(0, layout.slots))

    def step(self, x: Tensor, layout: Layout, cache: Cache) -> Tensor:
        """Attend from each user's last token ``x`` [B, D] to its history in ``cache`` and to itself."""
        q, k, v = self.query_key_value(x).view(len(x), 3, self.num_heads, -1).unbind(1)  # 3 x [B, H, d]
        mixed = torch.empty_like(x)
        for bucket, keys, values in zip(layout.buckets, cache.keys, cache.values, strict=True):
            users = torch.arange(len(bucket.users), device=x.device)
            keys[users, :, bucket.last] = k[bucket.users]
            values[users, :, bucket.last] = v[bucket.users]
            bias = bucket.bias[users, :, bucket.last].unsqueeze(1)  # [b, 1, 1, l]
            own = self._mix(q[bucket.users].unsqueeze(2), keys, values, bias, None)  # [b, H, 1, d]
            mixed[bucket.users] = own.flatten(1)
        return self.output(mixed)

    def _mix(self, q: Tensor, k: Tensor, v: Tensor, bias: Tensor, rng: Generator | None) -> Tensor:
        logits = (q * self.scale) @ k.transpose(-2, -1) + bias  # [b, H, l, l]
        return dropout(logits.softmax(-1), self.dropout, rng) @ v  # [b, H, l, d]


class Block(nn.Module):
    """A post-norm transformer block: attention, then a feed-forward of 4 D with GELU (tanh)."""

    def __init__(self, hidden_size: int, num_heads: int, dropout: float) -> None:
        super().__init__()
        self.dropout = dropout
        self.attention = Attention(hidden_size, num_heads, dropout)
        self.expand = nn.Linear(hidden_size, 4 * hidden_size)
        self.contract = nn.Linear(4 * hidden_size, hidden_size)
        self.attention_norm = nn.LayerNorm(hidden_size, eps=1e-12)
        self.feed_forward_norm = nn.LayerNorm(hidden_size, eps=1e-12)

    def initialize(self, rng: Generator) -> None:
        """Draw Xavier-normal weights; layer norms start as the identity."""
        self.attention.initialize(rng)
        for linear in (self.expand, self.contract):
            nn.init.xavier_normal_(linear.weight, generator=rng)
            initialize_bias(linear, rng)
        self.attention_norm.reset_parameters()
        self.feed_forward_norm.reset_parameters()

    def forward(self, x: Tensor, layout: Layout, rng: Generator | None = None, cache: Cache | None = None) -> Tensor:
        """Transform the rows ``x`` [rows, D]."""
        return self._feed_forward(x, self.attention(x, layout, rng, cache), rng)

    def step(self, x: Tensor, layout: Layout, cache: Cache) -> Tensor:
        """Transform each user's last token ``x`` [B, D] with the history's keys and values in ``cache``."""
        return self._feed_forward(x, self.attention.step(x, layout, cache), None)

    def _feed_forward(self, x: Tensor, attended: Tensor, rng: Generator | None) -> Tensor:
        x = self.attention_norm(x + dropout(attended, self.dropout, rng))
        inner = dropout(F.gelu(self.expand(x), approximate="tanh"), self.dropout, rng)  # [rows, 4 D]
        return self.feed_forward_norm(x + dropout(self.contract(inner), self.dropout, rng))


class Blocks(nn.ModuleList):
    """A stack of blocks."""

    def __init__(self, num_blocks: int, hidden_size: int, num_heads: int, dropout: float) -> None:
        super().__init__(Block(hidden_size, num_heads, dropout) for _ in range(num_blocks))

    def __iter__(self) -> Iterator[Block]:
        return cast("Iterator[Block]", super().__iter__())

    def initialize(self, rng: Generator) -> None:
        """Draw the weights of every block."""
        for block in self:
            block.initialize(rng)

    def forward(self, x: Tensor, layout: Layout, rng: Generator | None = None) -> Tensor:
        """Transform the rows ``x`` [rows, D]."""
        for block in self:
            x = block(x, layout, rng)
        return x

    def fill(self, x: Tensor, layout: Layout) -> list[Cache]:
        """Return each block's keys and values of the rows ``x`` [rows, D]."""
        caches = []
        for block in self:
            caches.append(Cache([], []))
            x = block(x, layout, None, caches[-1])
        return caches

    def step(self, x: Tensor, layout: Layout, caches: list[Cache]) -> Tensor:
        """Transform each user's last token ``x`` [B, D] against the caches."""
        for block, cache in zip(self, caches, strict=True):
            x = block.step(x, layout, cache)
        return x
