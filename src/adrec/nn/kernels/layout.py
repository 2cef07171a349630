"""Attention layout of a packed batch: buckets of users of similar length, with the padding sink.

A batch of B sequences is one flat tensor of rows: the N real tokens, user by user. If padding is attended, B sink rows
follow, one per user. Only attention arranges rows in slots: users of similar length form a bucket, padded to the
longest of them, with each user's sink in its first slot.

Why a sink: the published code left-pads to L and lets real tokens attend to the padding. A user's p padding positions
are identical. So, without dropout, attending to all of them equals attending to one whose logit gets ``+ log p``.
In training, dropout draws one value for each user's sink where the published code draws p of them.

Rows are moved to slots, and back, by one gather each. A slot after the end of a sequence repeats a row that no real
token attends to, so its gradient is exactly 0. The gradient of a gather is therefore the inverse gather, never a
scatter.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

NEVER = -1e9  # a finite logit whose softmax is exactly 0, so that no row is all -inf
MASKS = np.float32  # the dtype of attention biases

Int32s = NDArray[np.int32]
Int64s = NDArray[np.int64]


@dataclass(frozen=True)
class Bucket:
    """b users of similar length, padded to l slots.

    Attributes:
        users: the indices of its users in the batch, int64 [b].
        shape: (b, l).
        last: the slot of each user's last token, int64 [b].
        bias: the attention bias: [l, l] with causal attention, [b, 1, 1, l] without.
        sink_bias: the bias of slot 0 for the other slots, [b, 1, 1]; None if ``bias`` includes it or there is no sink.
    """

    users: Tensor
    shape: tuple[int, int]
    last: Tensor
    bias: Tensor
    sink_bias: Tensor | None

    @cached_property
    def seen(self) -> Tensor:
        """The attention bias of a step's token, [b, 1, 1, l + 1]; its slot follows those of its history."""
        behind = torch.arange(self.shape[1] + 1, device=self.last.device) >= self.last[:, None]  # [b, l + 1]
        behind[:, -1] = False
        bias = behind.to(self.bias.dtype).mul_(NEVER)[:, None, None]
        if self.sink_bias is not None:
            bias[..., 0] += self.sink_bias
        return bias


@dataclass(frozen=True)
class Layout:
    """The attention layout of a packed batch, with H heads of size d.

    Slots are numbered bucket by bucket, in a bucket by (query, key or value,) user, head and slot.

    Attributes:
        buckets: the padded buckets.
        heads: H.
        qkv_of_slots: the index in [rows, 3, H] of what each query, key and value slot holds, int32.
        slots_of_qkv: the slot of each of [rows, 3, H], int32; the inverse of ``qkv_of_slots``.
        rows_of_slots: the index in [rows, H] of what each query slot holds, int32.
        slots_of_rows: the inverse of ``rows_of_slots``.
        dummies: the slots of ``rows_of_slots`` that hold a repeated row.
        num_tokens: N, the number of real tokens; the rows after them are sinks.
        last_rows: the flat row of each user's last token, [B].
        row_users: the user of each row, [rows].
        uniform_sink: whether the sink attends to all tokens uniformly, as padding does in bidirectional attention. The
            published code masks the rows of padding queries, which leaves them a uniform softmax. With causal
            attention, padding attends only to padding, all of it identical, so there the weights do not matter.
        rotation: the cosines and sines of the rotation of queries and keys, [2, rows, d / 2] (:mod:`.rotary`); None
            if positions are not rotary.
    """

    buckets: tuple[Bucket, ...]
    heads: int
    qkv_of_slots: Tensor
    slots_of_qkv: Tensor
    rows_of_slots: Tensor
    slots_of_rows: Tensor
    dummies: Tensor
    num_tokens: int
    last_rows: Tensor
    row_users: Tensor
    uniform_sink: bool
    rotation: Tensor | None = None

    def with_sinks(self, tokens: Tensor, sinks: Tensor) -> Tensor:
        """Append a row for each user's sink, [..] or [B, ..], to the ``tokens``, [N, ..]."""
        num_sinks = len(self.row_users) - self.num_tokens
        return torch.cat([tokens, sinks.expand(num_sinks, *tokens.shape[1:])]) if num_sinks else tokens

    @cached_property
    def users(self) -> Tensor:
        """The users in bucket order, int64 [B]."""
        return torch.cat([bucket.users for bucket in self.buckets])

    @cached_property
    def steps(self) -> Tensor:
        """The slot in a :class:`Cache` of the step's token of each user and head, in bucket order, int64 [B H]."""
        rows, first = [], 0
        for b, length in (bucket.shape for bucket in self.buckets):
            end = first + b * self.heads * (length + 1)
            rows.append(torch.arange(first + length, end, length + 1))
            first = end
        return torch.cat(rows).to(self.last_rows.device, non_blocking=True)


def layout(
    lengths: Int64s,
    max_length: int,
    *,
    heads: int,
    sink: bool,
    causal: bool,
    device: torch.device,
    one_sink: bool = False,
) -> Layout:
    """Plan the attention of sequences of ``lengths`` [B] (each 1..L tokens) in a model of L = ``max_length``.

    With ``one_sink`` all users share one sink row: with causal attention and without dropout their sinks are equal.
    Such a layout has no gradient.
    """
    num_users, num_tokens, front = len(lengths), int(lengths.sum()), int(sink)
    starts = np.cumsum(lengths) - lengths
    row_users = np.repeat(np.arange(num_users), lengths)
    sink_rows = num_tokens + (np.zeros(num_users, dtype=np.int64) if one_sink else np.arange(num_users))
    if sink:
        row_users = np.concatenate([row_users, np.arange(1 if one_sink else num_users)])

    def put(array: NDArray[Any]) -> Tensor:
        return torch.from_numpy(array).to(device, non_blocking=True)

    slots, buckets = _Slots(len(row_users), heads), []
    exponents = np.ceil(np.log2(np.maximum(lengths, 4)))  # buckets of up to 4, 8, 16, 32 ... tokens
    for exponent in np.unique(exponents):
        users = np.flatnonzero(exponents == exponent)
        own = lengths[users]
        position = np.arange(int(own.max()))
        real = position < own[:, None]  # [b, l]
        rows = np.where(real, starts[users, None] + position, starts[users, None])
        if sink:
            rows = np.concatenate([sink_rows[users, None], rows], axis=1)
            real = np.concatenate([np.ones((len(users), 1), dtype=bool), real], axis=1)
        slots.add(rows.astype(np.int32), real)
        bias, sink_bias = _biases(own, max_length, real, sink=sink, causal=causal)
        shape = (len(users), rows.shape[1])
        near = None if sink_bias is None else put(sink_bias)
        buckets.append(Bucket(put(users), shape, put(own - 1 + front), put(bias), near))
    return Layout(
        buckets=tuple(buckets),
        heads=heads,
        qkv_of_slots=put(np.concatenate(slots.qkv_of_slots)),
        slots_of_qkv=put(slots.inverse(3)),
        rows_of_slots=put(np.concatenate(slots.rows_of_slots)),
        slots_of_rows=put(slots.inverse(1)),
        dummies=put(np.concatenate(slots.dummies)),
        num_tokens=num_tokens,
        last_rows=put(starts + lengths - 1),
        row_users=put(row_users),
        uniform_sink=sink and not causal,
    )


class _Slots:
    """Builds the gather indices between rows and slots, one bucket at a time."""

    def __init__(self, num_rows: int, heads: int) -> None:
        self.heads, self.used = heads, 0
        self.head = np.arange(heads, dtype=np.int32)
        # For each row: the number of slots in earlier buckets, its user and slot in its bucket, its bucket's b and l.
        self.before, self.user, self.slot, self.b, self.length = (np.empty(num_rows, dtype=np.int32) for _ in range(5))
        self.qkv_of_slots: list[Int32s] = []
        self.rows_of_slots: list[Int32s] = []
        self.dummies: list[Int64s] = []

    def add(self, rows: Int32s, real: NDArray[np.bool_]) -> None:
        """Add a bucket whose slots hold ``rows`` [b, l]; ``real`` [b, l] marks the slots that are not repeats."""
        b, length = rows.shape
        head = self.head[:, None]  # [H, 1]
        part = np.arange(3, dtype=np.int32)[:, None, None, None]  # [3, 1, 1, 1]
        spaced = rows[:, None, :]  # [b, 1, l]
        self.qkv_of_slots.append(((spaced * 3 + part) * self.heads + head).ravel())  # [3 b H l]
        self.rows_of_slots.append((spaced * self.heads + head).ravel())  # [b H l]
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

    def inverse(self, parts: int) -> Int32s:
        """Return the slot of each of [rows, parts, H], where each bucket's slots are [parts, b, H, l]."""
        first = (self.before * parts + self.user * self.length) * self.heads + self.slot  # [rows]
        of_part = np.arange(parts, dtype=np.int32) * (self.b * self.length * self.heads)[:, None]  # [rows, parts]
        of_head = self.head * self.length[:, None]  # [rows, H]
        return ((first[:, None] + of_part)[:, :, None] + of_head[:, None, :]).ravel()


def _biases(
    lengths: Int64s, max_length: int, real: NDArray[np.bool_], *, sink: bool, causal: bool
) -> tuple[NDArray[np.float32], NDArray[np.float32] | None]:
    """Return a bucket's ``bias`` and ``sink_bias``: log p for the sink, NEVER for masked slots."""
    padding = max_length - lengths
    near = np.where(padding > 0, np.log(np.maximum(padding, 1)), NEVER).astype(MASKS)[:, None, None]  # [b, 1, 1]
    if causal:  # real tokens never attend to the slots after the end
        num_slots = real.shape[1]
        return np.triu(np.full((num_slots, num_slots), NEVER, dtype=np.float32), k=1), near if sink else None
    keys = np.where(real, 0.0, NEVER).astype(MASKS)[:, None, None, :]  # [b, 1, 1, l]
    if sink:
        keys[..., 0] = near
    return keys, None
